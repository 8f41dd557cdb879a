"""Loads all families, which enter themselves into the registry."""

from . import arithmetic as arithmetic
from . import complex_numbers as complex_numbers
from . import creation as creation
from . import fourier as fourier
from . import indexing as indexing
from . import normalisation as normalisation
from . import pointwise as pointwise
from . import pooling as pooling
from . import products as products
from . import random_numbers as random_numbers
from . import reductions as reductions
from . import shapes as shapes
from . import sorting as sorting
