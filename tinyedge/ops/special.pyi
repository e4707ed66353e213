# Written by tools/stubs.py: run make stubs.

from tinyedge.ops.exponential import erfc as erfc
from tinyedge.ops.exponential import exp2 as exp2
from tinyedge.ops.exponential import expm1 as expm1
from tinyedge.ops.exponential import log1p as log1p
from tinyedge.ops.exponential import logit as logit
from tinyedge.ops.exponential import xlogy as xlogy
from tinyedge.ops.reduce import logsumexp as logsumexp
from tinyedge.ops.rounding import round as round
from tinyedge.ops.softmax import log_softmax as log_softmax
from tinyedge.ops.softmax import softmax as softmax
from tinyedge.ops.special_functions import digamma as digamma
from tinyedge.ops.special_functions import erfinv as erfinv
from tinyedge.ops.special_functions import i0 as i0
from tinyedge.ops.special_functions import polygamma as polygamma
from tinyedge.ops.special_functions import sinc as sinc
from tinyedge.ops.special_functions import special_entr as entr
from tinyedge.ops.special_functions import special_expit as expit
from tinyedge.ops.special_functions import special_gammaln as gammaln
from tinyedge.ops.special_functions import special_i0e as i0e
from tinyedge.ops.special_functions import special_i1 as i1
from tinyedge.ops.special_functions import special_i1e as i1e
from tinyedge.ops.special_functions import special_log_ndtr as log_ndtr
from tinyedge.ops.special_functions import special_multigammaln as multigammaln
from tinyedge.ops.special_functions import special_ndtr as ndtr
from tinyedge.ops.special_functions import special_ndtri as ndtri
from tinyedge.ops.special_functions import special_psi as psi
from tinyedge.ops.special_functions import special_xlog1py as xlog1py
from tinyedge.ops.unary import erf as erf

__all__ = [
    "digamma",
    "entr",
    "erf",
    "erfc",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammaln",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "log1p",
    "log_ndtr",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "ndtr",
    "ndtri",
    "polygamma",
    "psi",
    "round",
    "sinc",
    "softmax",
    "xlog1py",
    "xlogy",
]
