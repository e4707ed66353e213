# Written by tools/stubs.py: run make stubs.

from tinyedge.ops.decomposition import linalg_cond as cond
from tinyedge.ops.decomposition import linalg_eigh as eigh
from tinyedge.ops.decomposition import linalg_eigvalsh as eigvalsh
from tinyedge.ops.decomposition import linalg_lstsq as lstsq
from tinyedge.ops.decomposition import linalg_matrix_rank as matrix_rank
from tinyedge.ops.decomposition import linalg_norm as norm
from tinyedge.ops.decomposition import linalg_pinv as pinv
from tinyedge.ops.decomposition import linalg_qr as qr
from tinyedge.ops.decomposition import linalg_svd as svd
from tinyedge.ops.decomposition import linalg_svdvals as svdvals
from tinyedge.ops.decomposition import matrix_norm as matrix_norm
from tinyedge.ops.diagonals import linalg_cross as cross
from tinyedge.ops.diagonals import linalg_diagonal as diagonal
from tinyedge.ops.lu import linalg_lu as lu
from tinyedge.ops.lu import linalg_lu_factor as lu_factor
from tinyedge.ops.lu import linalg_lu_factor_ex as lu_factor_ex
from tinyedge.ops.lu import linalg_lu_solve as lu_solve
from tinyedge.ops.matrix_exp import linalg_matrix_exp as matrix_exp
from tinyedge.ops.products import linalg_matmul as matmul
from tinyedge.ops.products import linalg_multi_dot as multi_dot
from tinyedge.ops.products import linalg_tensorinv as tensorinv
from tinyedge.ops.products import linalg_tensorsolve as tensorsolve
from tinyedge.ops.products import linalg_vecdot as vecdot
from tinyedge.ops.products import matrix_power as matrix_power
from tinyedge.ops.series import linalg_vander as vander
from tinyedge.ops.solve import det as det
from tinyedge.ops.solve import linalg_cholesky as cholesky
from tinyedge.ops.solve import linalg_cholesky_ex as cholesky_ex
from tinyedge.ops.solve import linalg_inv as inv
from tinyedge.ops.solve import linalg_inv_ex as inv_ex
from tinyedge.ops.solve import linalg_solve as solve
from tinyedge.ops.solve import linalg_solve_ex as solve_ex
from tinyedge.ops.solve import linalg_solve_triangular as solve_triangular
from tinyedge.ops.solve import slogdet as slogdet
from tinyedge.ops.statistics import vector_norm as vector_norm

__all__ = [
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "inv_ex",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]
