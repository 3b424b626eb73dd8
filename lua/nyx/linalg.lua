-- nyx.linalg: solving, inverses, determinants and least squares, by torch.linalg's names,
-- over ops that factor matrices. All take batches of matrices (..., rows, columns). The
-- methods of tensors are at the end.
-- Read next: core/op/solve.c, compose.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local docs = require("nyx.tensor").docs

local Tensor = nyx.Tensor

---@class nyx.linalg
---@field cholesky fun(a: nyx.Tensor, upper?: boolean): nyx.Tensor
---@field lu_factor fun(a: nyx.Tensor): nyx.Tensor, nyx.Tensor
---@field qr fun(a: nyx.Tensor, mode?: string): nyx.Tensor, nyx.Tensor
---@field solve_triangular fun(a: nyx.Tensor, b: nyx.Tensor, upper: boolean): nyx.Tensor
local M = { cholesky = nyx.cholesky, lu_factor = nyx.lu_factor, qr = nyx.qr,
  solve_triangular = nyx.solve_triangular }

-- ---------------------------------------------------------------- arguments

local function matrices(where, name, x)
  if check.tensor(where, name, x).ndim < 2 then
    check.fail("%s: '%s' is %s, expected matrices (..., rows, columns)", where, name,
      check.describe(x))
  end
  return x
end

local function square(where, name, x)
  if matrices(where, name, x):size(-1) ~= x:size(-2) then
    check.fail("%s: '%s' is %s, expected square matrices (..., n, n)", where, name,
      check.describe(x))
  end
  return x
end

local function turned(x) return x:transpose(-2, -1) end

-- Ones on the diagonals of n x m, in the dtype of x and where it is.
local function eye(x, n, m) return nyx.eye(n, m, { dtype = x.dtype, device = x.device }) end

-- Whether b holds vectors, one for each of the matrices a: as PyTorch decides it.
local function is_vector(a, b)
  if b.ndim == 1 then return true end
  if b.ndim ~= a.ndim - 1 then return false end
  for d = 1, b.ndim do
    if b:size(d) ~= a:size(d) then return false end
  end
  return true
end

-- f(columns) of b, or of vectors b as columns; then it gives vectors.
local function of_columns(a, b, f)
  if not is_vector(a, b) then return f(b) end
  return f(b:unsqueeze(-1)):squeeze(-1)
end

-- ---------------------------------------------------------------- equations

--- x with a x = b, by LU; raises where a matrix is singular.
---@param a nyx.Tensor (..., n, n)
---@param b nyx.Tensor (..., n, k), or vectors (..., n)
---@param options? {left: boolean} false: x a = b
---@return nyx.Tensor
function M.solve(a, b, options)
  square("linalg.solve", "a", a)
  check.tensor("linalg.solve", "b", b)
  local left = check.options("linalg.solve", options, "left").left ~= false
  if left then return of_columns(a, b, function(c) return (nyx.solve(a, c)) end) end
  if is_vector(a, b) then return M.solve(turned(a), b) end
  return turned((nyx.solve(turned(a), turned(b))))
end

--- The inverse; raises where a matrix is singular.
---@param a nyx.Tensor (..., n, n)
---@return nyx.Tensor
function M.inv(a)
  return nyx.inverse(square("linalg.inv", "a", a))
end

--- x with a x = b (adjoint: a^T x = b) from what lu_factor(a) gave.
---@param lu nyx.Tensor (..., n, n)
---@param pivots nyx.Tensor (..., n)
---@param b nyx.Tensor (..., n, k)
---@param options? {left: boolean, adjoint: boolean} left false: x a = b
---@return nyx.Tensor
function M.lu_solve(lu, pivots, b, options)
  square("linalg.lu_solve", "lu", lu)
  check.tensor("linalg.lu_solve", "pivots", pivots)
  matrices("linalg.lu_solve", "b", b)
  options = check.options("linalg.lu_solve", options, "left adjoint")
  if options.left == false then
    return turned(M.lu_solve(lu, pivots, turned(b), { adjoint = not options.adjoint }))
  end
  if options.adjoint then
    local x = turned(lu):solve_triangular(b, false)
    return turned(lu):solve_triangular(x, true, { unitriangular = true }):pivot_rows(pivots, true)
  end
  local x = lu:solve_triangular(b:pivot_rows(pivots), false, { unitriangular = true })
  return lu:solve_triangular(x, true)
end

--- The x of least |a x - b|, by QR, for matrices of full rank; of wide ones, which have many
--- solutions, the shortest.
---@param a nyx.Tensor (..., m, n)
---@param b nyx.Tensor (..., m, k), or vectors (..., m)
---@return nyx.Tensor x (..., n, k)
---@return nyx.Tensor residuals (..., k), the sums of squares; empty unless m > n
function M.lstsq(a, b)
  matrices("linalg.lstsq", "a", a)
  check.tensor("linalg.lstsq", "b", b)
  local m, n = a:size(-2), a:size(-1)
  local residuals = a:new_zeros({ 0 })
  local x = of_columns(a, b, function(c)
    if c:size(-2) ~= m then
      check.fail("linalg.lstsq: 'b' is %s, expected as many rows as 'a' has, %d", check.describe(b),
        m)
    end
    if m < n then
      local q, r = turned(a):qr()
      return q:matmul(turned(r):solve_triangular(c, false, { check = true }))
    end
    local solution, squares = nyx.lstsq(a, c)
    if m > n then residuals = squares end
    return solution
  end)
  if m > n and is_vector(a, b) then residuals = residuals:squeeze(-1) end
  return x, residuals
end

-- ---------------------------------------------------------------- factors

--- The factors of a = P L U: a permutation, lower triangles with ones on their diagonals,
--- upper ones.
---@param a nyx.Tensor (..., m, n)
---@return nyx.Tensor p (..., m, m)
---@return nyx.Tensor l (..., m, k), k the less of m and n
---@return nyx.Tensor u (..., k, n)
function M.lu(a)
  local m, n = matrices("linalg.lu", "a", a):size(-2), a:size(-1)
  local k = math.min(m, n)
  local lu, pivots = a:lu_factor()
  local l = lu:narrow(-1, 1, k):tril(-1) + eye(a, m, k)
  return eye(a, m):pivot_rows(pivots, true), l, lu:narrow(-2, 1, k):triu()
end

-- ---------------------------------------------------------------- determinants, powers

--- The determinant.
---@param a nyx.Tensor (..., n, n)
---@return nyx.Tensor (...)
function M.det(a)
  local _, _, value = nyx.determinant(square("linalg.det", "a", a))
  return value
end

--- The determinant's sign (0: singular) and the logarithm of its magnitude.
---@param a nyx.Tensor (..., n, n)
---@return nyx.Tensor sign (...)
---@return nyx.Tensor logabsdet (...)
function M.slogdet(a)
  local _, _, sign, log = nyx.determinant(square("linalg.slogdet", "a", a), { log = true })
  return sign, log
end

--- The product of n matrices a; of the inverse for n < 0.
---@param a nyx.Tensor (..., n, n)
---@param n integer
---@return nyx.Tensor
function M.matrix_power(a, n)
  square("linalg.matrix_power", "a", a)
  check.integer("linalg.matrix_power", "n", n, -2 ^ 53)
  if n == 0 then return eye(a, a:size(-1)):expand_as(a):clone() end
  local power, square_of = nil, n < 0 and M.inv(a) or a
  n = math.abs(n)
  while true do
    if n % 2 == 1 then power = power and power:matmul(square_of) or square_of end
    n = math.floor(n / 2)
    if n == 0 then return power == a and a:clone() or power end
    square_of = square_of:matmul(square_of)
  end
end

-- ---------------------------------------------------------------- methods

docs.det = { "linear algebra", "x:det(): linalg.det" }
function Tensor:det() return M.det(self) end

docs.slogdet = { "linear algebra", "x:slogdet(): linalg.slogdet, two results" }
function Tensor:slogdet() return M.slogdet(self) end

docs.logdet = { "linear algebra", "x:logdet(): the logarithm of the determinant of matrices x " ..
  "(..., n, n); nan where that is negative" }
--- The logarithm of the determinant; nan where it is negative.
---@return nyx.Tensor (...)
function Tensor:logdet()
  local sign, log = M.slogdet(self)
  return log + sign:log()
end

docs.matrix_power = { "linear algebra", "x:matrix_power(n): linalg.matrix_power" }
---@param n integer
function Tensor:matrix_power(n) return M.matrix_power(self, n) end

docs.lu_solve = { "linear algebra", "x:lu_solve(lu, pivots, {left, adjoint}): " ..
  "linalg.lu_solve(lu, pivots, x, ...)" }
---@param lu nyx.Tensor
---@param pivots nyx.Tensor
---@param options? {left: boolean, adjoint: boolean}
function Tensor:lu_solve(lu, pivots, options) return M.lu_solve(lu, pivots, self, options) end

docs.cholesky_solve = { "linear algebra", "x:cholesky_solve(l, {upper}): y with a y = x for " ..
  "matrices a whose factor l is, l = a:cholesky(); with upper = true, l = " ..
  "a:cholesky{upper = true}" }
--- y with a y = x for matrices a = l l^T.
---@param l nyx.Tensor (..., n, n)
---@param options? {upper: boolean} a = l^T l
---@return nyx.Tensor
function Tensor:cholesky_solve(l, options)
  square("cholesky_solve", "l", l)
  matrices("cholesky_solve", "x", self)
  local upper = check.options("cholesky_solve", options, "upper").upper
  local lower, other = upper and turned(l) or l, upper and l or turned(l)
  return other:solve_triangular(lower:solve_triangular(self, false), true)
end

for _, name in ipairs { "det", "slogdet", "logdet", "matrix_power", "lu_solve",
  "cholesky_solve" } do
  nyx[name] = Tensor[name]
end

return M
