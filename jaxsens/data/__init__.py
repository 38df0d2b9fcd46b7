"""Real data sets from a package, a path or tensorflow-datasets: `load(name, source)`."""

from jaxsens.data.dataset import DataError as DataError
from jaxsens.data.dataset import Dataset as Dataset
from jaxsens.data.dataset import normalise as normalise
from jaxsens.data.images.catalogue import load as load
from jaxsens.data.images.image_folder import ImageTree as ImageTree
from jaxsens.data.split import Split as Split
