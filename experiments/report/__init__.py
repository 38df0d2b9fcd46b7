"""The report: what both papers print beside what committed run records say."""
