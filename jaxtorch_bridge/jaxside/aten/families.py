"""Loads all families, which enter themselves into the registry."""

from . import creation as creation
from . import losses as losses
from . import normalisation as normalisation
from . import random_numbers as random_numbers
from . import reductions as reductions
from . import shapes as shapes
from .elementwise import arithmetic as arithmetic
from .elementwise import complex_numbers as complex_numbers
from .elementwise import pointwise as pointwise
from .elementwise import polynomials as polynomials
from .elementwise import special_functions as special_functions
from .images import grid_sampling as grid_sampling
from .images import pooling as pooling
from .images import resampling as resampling
from .linear import distances as distances
from .linear import factorisations as factorisations
from .linear import fourier as fourier
from .linear import linear_algebra as linear_algebra
from .linear import products as products
from .places import embedding_bags as embedding_bags
from .places import histograms as histograms
from .places import indexing as indexing
from .places import order_statistics as order_statistics
from .places import scattering as scattering
from .places import segments as segments
from .places import sorting as sorting
