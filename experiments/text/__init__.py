"""Parts of the language experiment: its data, networks and measures."""
