"""Loads all families, which enter themselves into the registry."""

from . import arithmetic as arithmetic
from . import complex_numbers as complex_numbers
from . import creation as creation
from . import distances as distances
from . import embedding_bags as embedding_bags
from . import factorisations as factorisations
from . import fourier as fourier
from . import grid_sampling as grid_sampling
from . import histograms as histograms
from . import indexing as indexing
from . import linear_algebra as linear_algebra
from . import losses as losses
from . import normalisation as normalisation
from . import order_statistics as order_statistics
from . import pointwise as pointwise
from . import polynomials as polynomials
from . import pooling as pooling
from . import products as products
from . import random_numbers as random_numbers
from . import reductions as reductions
from . import resampling as resampling
from . import scattering as scattering
from . import segments as segments
from . import shapes as shapes
from . import sorting as sorting
from . import special_functions as special_functions
