"""PyTorch's ``torch.func``: functions that compute derivatives of functions, and modules as functions.

In: functions of tensors, or of tuples, lists and dicts of them; a module and its parameters. Out: functions.
"""

from tinyedge.gradients.batched import vmap
from tinyedge.gradients.transforms import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp
from tinyedge.nn.functional_call import functional_call, stack_module_state

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "stack_module_state",
    "vjp",
    "vmap",
]
