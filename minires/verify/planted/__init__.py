from minires.verify.planted.layers import LAYERS
from minires.verify.planted.mutation import Mutation, catch, caught_by
from minires.verify.planted.operations import OPERATIONS
MUTATIONS=(*OPERATIONS, *LAYERS)
