"""The layers every architecture here shares, with the conventions of the PyTorch originals.

The papers trained PyTorch models, so initial distributions, epsilons and the BatchNorm update are
PyTorch's. Parameters are float32; `dtype` is the type of the arithmetic between them. Statistics
(means, variances, softmax) are always taken in float32.
"""

from jaxsens.models.layers.attention import KINDS as KINDS
from jaxsens.models.layers.attention import Attention as Attention
from jaxsens.models.layers.attention import attend as attend
from jaxsens.models.layers.attention import merge_heads as merge_heads
from jaxsens.models.layers.attention import project_heads as project_heads
from jaxsens.models.layers.attention import visible as visible
from jaxsens.models.layers.block import Block as Block
from jaxsens.models.layers.block import Start as Start
from jaxsens.models.layers.check import check_choice as check_choice
from jaxsens.models.layers.check import check_rates as check_rates
from jaxsens.models.layers.check import check_size_lists as check_size_lists
from jaxsens.models.layers.check import check_sizes as check_sizes
from jaxsens.models.layers.conv import DepthwiseConv as DepthwiseConv
from jaxsens.models.layers.conv import conv as conv
from jaxsens.models.layers.dropout import Dropout as Dropout
from jaxsens.models.layers.dropout import Rngs as Rngs
from jaxsens.models.layers.dropout import random_bits as random_bits
from jaxsens.models.layers.init import ZEROS as ZEROS
from jaxsens.models.layers.init import Initializer as Initializer
from jaxsens.models.layers.init import fan_in_uniform as fan_in_uniform
from jaxsens.models.layers.init import he_normal as he_normal
from jaxsens.models.layers.init import normal_002 as normal_002
from jaxsens.models.layers.init import uniform_bias as uniform_bias
from jaxsens.models.layers.init import xavier_uniform as xavier_uniform
from jaxsens.models.layers.linear import gelu as gelu
from jaxsens.models.layers.linear import linear as linear
from jaxsens.models.layers.norm import BatchNorm as BatchNorm
from jaxsens.models.layers.norm import layer_norm as layer_norm
from jaxsens.models.layers.patches import check_images as check_images
from jaxsens.models.layers.patches import to_patches as to_patches
from jaxsens.models.layers.pool import max_pool as max_pool
from jaxsens.models.layers.text import check_text as check_text
from jaxsens.models.layers.text import last_token as last_token
from jaxsens.models.layers.text import look_up as look_up
from jaxsens.models.layers.text import table as table
