"""Random calls of factorizations and of what is solved by them, as makers.py has them for
the other ops. Read next: makers.py."""
import torch

from cases import Case


def laid_out(r, x):
    """x in some layout."""
    t = r.tensor(x.shape, x.dtype, repeats=False)
    return t.copy_(x)


def regular(r, dtype, lead, m, n, shift=True):
    """Matrices far from singular, by a large diagonal, whose rows are to be exchanged where `shift`."""
    x, k = r.tensor([*lead, m, n], torch.float64, -1, 1, plain=True), min(m, n)
    for i in range(k):
        x[..., i, (i + 1) % k if shift else i] += 3
    return laid_out(r, x.to(dtype))


def matrix_sizes(r, dtype):
    """Leading dimensions and a size."""
    n = 0 if r.chance(0.05) else r.randint(20, 50) if dtype == torch.float64 and r.chance(0.1) else r.randint(1, 6)
    return r.shape(0, 2, 3), n


def definite(r, dtype, lead, n):
    x = r.tensor([*lead, n, n], torch.float64, -1, 1, plain=True)
    x = x @ x.mT / max(n, 1) + torch.eye(n, dtype=torch.float64)
    return laid_out(r, ((x + x.mT) / 2).to(dtype))


def cholesky(r, dtype):
    return Case([definite(r, dtype, *matrix_sizes(r, dtype))], {"upper": True} if r.chance(0.4) else {})


def square(**attrs):
    def make(r, dtype):
        lead, n = matrix_sizes(r, dtype)
        return Case([regular(r, dtype, lead, n, n)], {k: v(r) for k, v in attrs.items()})

    return make


def oblong(r, dtype):
    lead, n = matrix_sizes(r, dtype)
    return Case([regular(r, dtype, lead, n if r.chance(0.3) else r.randint(1, 7), n)])


def qr(r, dtype):
    case = oblong(r, dtype)
    m, n = case.inputs[0].shape[-2:]
    case.attrs = {"mode": r.choice(["reduced", "complete", "r"])} if r.chance(0.7) else {}
    mode = case.attrs.get("mode")
    if mode == "r" or mode == "complete" and m > n or n == 0:  # no gradient
        case.order = 0
    return case


def pivoting(r, dtype):
    x, pivots = r.broadcast(2, 2)
    m = r.randint(1, 5)
    attrs = {"inverse": r.chance(0.5)} if r.chance(0.7) else {}
    return Case([r.tensor([*x, m, r.randint(0 if r.chance(0.1) else 1, 4)], dtype),
                 r.positions([*pivots, r.randint(0, m)], m)], attrs, positions={1})


def sides(r, dtype, a, b, n, left=True):
    """A right-hand side for matrices of n rows."""
    k = 0 if r.chance(0.04) else r.randint(1, 4)
    return r.tensor([*b, n, k] if left else [*b, k, n], dtype)


def solving(r, dtype):
    a, b = r.broadcast(2, 2)
    n = matrix_sizes(r, dtype)[1]
    return Case([regular(r, dtype, a, n, n), sides(r, dtype, a, b, n)])


def solving_vectors(r, dtype):
    lead, n = matrix_sizes(r, dtype)
    n, left = max(n, 1), r.chance(0.6)
    if r.chance(0.3):  # vectors, one for each
        return Case([regular(r, dtype, lead, n, n), r.tensor([*lead, n], dtype)])
    return Case([regular(r, dtype, lead, n, n), sides(r, dtype, lead, lead, n, left)], {"left": left})


def triangular(r, dtype):
    a, b = r.broadcast(2, 2)
    n, left = matrix_sizes(r, dtype)[1], r.chance(0.6)
    attrs = {"upper": r.chance(0.5)}
    if not left or r.chance(0.3):
        attrs["left"] = left
    x = regular(r, dtype, a, n, n, shift=False)
    if r.chance(0.3):
        attrs["unitriangular"] = True
        x = x / max(n, 4)
    return Case([x, sides(r, dtype, a, b, n, left)], attrs)


def lu_solving(r, dtype):
    lead, n = matrix_sizes(r, dtype)
    lu, pivots = torch.linalg.lu_factor(regular(r, torch.float64, lead, n, n))
    left = r.chance(0.6)
    return Case([laid_out(r, lu.to(dtype)), pivots.long() - 1, sides(r, dtype, lead, lead, n, left)],
                {"left": left, "adjoint": r.chance(0.5)}, positions={1})


def least_squares(r, dtype):
    lead, n = matrix_sizes(r, dtype)
    m, n = r.randint(1, 7), max(n, 1)
    return Case([regular(r, dtype, lead, m, n), sides(r, dtype, lead, lead, m)])


def tall_and_sides(r, dtype):
    """A square a leaves nothing but roundings, which have no derivative to be compared; those of many random columns
    come near to singular ones, whose gradients lose twice the digits."""
    lead, n = r.shape(0, 2, 3), r.randint(1, 6)
    a, b = ([1 if r.chance(0.2) else size for size in lead] for _ in range(2))
    m = n + r.randint(1, 4)
    return Case([regular(r, dtype, a, m, n), sides(r, dtype, a, b, m)])


def with_factor(solve):
    def make(r, dtype):
        lead, n = matrix_sizes(r, dtype)
        n, upper = max(n, 1), r.chance(0.4)
        factor = torch.linalg.cholesky(definite(r, torch.float64, lead, n), upper=upper)
        factor = laid_out(r, factor.to(dtype))
        attrs = {"upper": True} if upper else {}
        return Case([sides(r, dtype, lead, lead, n), factor] if solve else [factor], attrs)

    return make


def positive(r, dtype):
    return Case([definite(r, dtype, *matrix_sizes(r, dtype))])


MATRIX_MAKERS = {
    "cholesky": cholesky, "lu_factor": oblong, "pivot_rows": pivoting, "qr": qr, "solve": solving,
    "solve_triangular": triangular, "determinant": square(log=lambda r: r.chance(0.5)),
    "linalg.solve": solving_vectors, "linalg.inv": square(), "linalg.lu": oblong, "linalg.lu_solve": lu_solving,
    "inverse": square(), "lstsq": tall_and_sides,
    "linalg.lstsq": least_squares, "linalg.det": square(), "linalg.slogdet": square(),
    "linalg.matrix_power": square(n=lambda r: r.randint(-2, 4)), "logdet": positive,
    "cholesky_solve": with_factor(True), "cholesky_inverse": with_factor(False),
}
