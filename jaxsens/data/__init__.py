"""Real data sets from a package, a path or tensorflow-datasets: `load(name, source)`."""

from jaxsens.data.catalogue import load as load
from jaxsens.data.dataset import DataError as DataError
from jaxsens.data.dataset import Dataset as Dataset
from jaxsens.data.dataset import normalise as normalise
from jaxsens.data.image_folder import ImageTree as ImageTree
