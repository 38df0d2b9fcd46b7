"""Theory: spectra of conjugate and neural tangent kernels on the Boolean cube."""

from command.start import guard

guard()
