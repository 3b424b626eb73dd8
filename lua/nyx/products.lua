-- Products of vectors and matrices by PyTorch's names, the forms of BLAS and what is made of
-- them. Read next: einsum.lua, compose.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local docs = require("nyx.tensor").docs

local Tensor = nyx.Tensor

local function of_dims(where, name, x, ndim)
  check.tensor(where, name, x)
  if x.ndim ~= ndim then
    check.fail("%s: '%s' is %s, expected %d dimension%s", where, name, check.describe(x), ndim,
      ndim == 1 and "" or "s")
  end
  return x
end

-- Of floats on the CPU, which have kernels that others lack.
local function has_kernel(x)
  return x.device == "cpu" and x:is_floating_point()
end

-- Of those that compute in their own type, float32 and float64.
local wide = { float32 = true, float64 = true }
local function has_wide_kernel(x)
  return wide[x.dtype] and x.device == "cpu"
end

-- ---------------------------------------------------------------- vectors and matrices

docs.dot = { "linear algebra", "x:dot(y): the sum of the products of two vectors" }
--- The sum of the products of two vectors.
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:dot(other)
  return of_dims("dot", "x", self, 1):matmul(of_dims("dot", "y", other, 1))
end

docs.mv = { "linear algebra", "x:mv(y): a matrix times a vector" }
--- A matrix times a vector.
---@param vector nyx.Tensor
---@return nyx.Tensor
function Tensor:mv(vector)
  return of_dims("mv", "x", self, 2):matmul(of_dims("mv", "y", vector, 1))
end

docs.mm = { "linear algebra", "x:mm(y): a matrix times a matrix" }
--- A matrix times a matrix.
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:mm(other)
  return of_dims("mm", "x", self, 2):matmul(of_dims("mm", "y", other, 2))
end

docs.vdot = { "linear algebra", "x:vdot(y): the sum of the products of two vectors, as dot" }
--- The sum of the products of two vectors.
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:vdot(other)
  return of_dims("vdot", "x", self, 1):matmul(of_dims("vdot", "y", other, 1))
end

-- Elements from which an outer product is better made row by row than by broadcasting.
local LARGE = 2 ^ 15

docs.outer = { "linear algebra", "x:outer(y): every product of an element of the vector x and " ..
  "one of the vector y; a matrix" }
--- Every product of an element of one vector and one of another.
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:outer(other)
  local x, y = of_dims("outer", "x", self, 1):unsqueeze(2), of_dims("outer", "y", other, 1)
  if x:numel() * y:numel() >= LARGE and has_wide_kernel(x) and has_wide_kernel(y) then
    return x:kron_product(y:unsqueeze(1))
  end
  return x * y
end

docs.ger = { "linear algebra", "x:ger(y): outer" }
Tensor.ger = Tensor.outer

-- ---------------------------------------------------------------- products and a sum

-- The factors of x and of the product.
local function factors(where, x, options)
  check.tensor(where, "x", x)
  options = check.options(where, options, "beta alpha")
  return check.number(where, "beta", options.beta or 1),
    check.number(where, "alpha", options.alpha or 1)
end

-- Whether x broadcasts to a shape.
local function fits(x, shape)
  local own = x.shape
  for d = 1, #own do
    local n = shape[d + #shape - #own]
    if own[d] ~= n and own[d] ~= 1 then return false end
  end
  return #own <= #shape
end

local function check_fit(where, x, shape)
  if fits(x, shape) then return end
  check.fail("%s: 'x' is %s, which does not broadcast to the product, (%s)", where,
    check.describe(x), table.concat(shape, "x"))
end

-- beta x + alpha product, of the shape of the product. Where beta is 0 x is not looked at, nan
-- and all.
local function plus(where, x, beta, alpha, product)
  if not x:is_same_size(product) then check_fit(where, x, product.shape) end
  if beta == 1 and alpha == 1 then return x + product end
  if beta ~= 0 and has_kernel(x) and has_kernel(product) then
    return x:axpby(product, { alpha = beta, beta = alpha })
  end
  if alpha ~= 1 then product = product * alpha end
  if beta == 0 then return product end
  return (beta == 1 and x or x * beta) + product
end

-- beta x + alpha (a @ b) of matrices or batches of them.
local function plus_matmul(where, x, beta, alpha, a, b)
  if beta == 0 or not (has_kernel(x) and has_kernel(a) and has_kernel(b)) or
    a:size(-1) ~= b:size(-2) then
    return plus(where, x, beta, alpha, a:matmul(b))
  end
  local shape = a.shape
  shape[#shape] = b:size(-1)
  check_fit(where, x, shape)
  return x:matmul_add(a, b, { beta = beta, alpha = alpha })
end

docs.addmm = { "linear algebra", "x:addmm(a, b, {beta, alpha}): beta x + alpha (a @ b), both " ..
  "factors 1 when left out; without x where beta is 0" }
--- beta x + alpha (a @ b) of matrices a and b.
---@param a nyx.Tensor
---@param b nyx.Tensor
---@param options? {beta: number, alpha: number}
---@return nyx.Tensor
function Tensor:addmm(a, b, options)
  local beta, alpha = factors("addmm", self, options)
  of_dims("addmm", "a", a, 2)
  return plus_matmul("addmm", self, beta, alpha, a, of_dims("addmm", "b", b, 2))
end

docs.addmv = { "linear algebra", "x:addmv(a, b, {beta, alpha}): beta x + alpha (a @ b) of a " ..
  "matrix a and a vector b, as addmm" }
--- beta x + alpha (a @ b) of a matrix a and a vector b.
---@param a nyx.Tensor
---@param b nyx.Tensor
---@param options? {beta: number, alpha: number}
---@return nyx.Tensor
function Tensor:addmv(a, b, options)
  local beta, alpha = factors("addmv", self, options)
  of_dims("addmv", "a", a, 2)
  return plus("addmv", self, beta, alpha, a:matmul(of_dims("addmv", "b", b, 1)))
end

docs.addr = { "linear algebra", "x:addr(a, b, {beta, alpha}): beta x + alpha a:outer(b) of " ..
  "vectors a and b, as addmm" }
--- beta x + alpha (the outer product of vectors a and b).
---@param a nyx.Tensor
---@param b nyx.Tensor
---@param options? {beta: number, alpha: number}
---@return nyx.Tensor
function Tensor:addr(a, b, options)
  local beta, alpha = factors("addr", self, options)
  of_dims("addr", "a", a, 1)
  of_dims("addr", "b", b, 1)
  if beta == 0 or not (has_kernel(self) and has_kernel(a) and has_kernel(b)) then
    return plus("addr", self, beta, alpha, a:outer(b))
  end
  local n, m = a:size(1), b:size(1)
  if self.ndim ~= 2 or self:size(1) ~= n or self:size(2) ~= m then
    check_fit("addr", self, { n, m })
  end
  local factors_given = (alpha ~= 1 or beta ~= 1) and { value = alpha, beta = beta } or nil
  return self:addcmul(a:unsqueeze(2), b, factors_given)
end

docs.baddbmm = { "linear algebra", "x:baddbmm(a, b, {beta, alpha}): beta x + alpha a:bmm(b) of " ..
  "batches of matrices, as addmm" }
--- beta x + alpha (a @ b) of batches of matrices.
---@param a nyx.Tensor
---@param b nyx.Tensor
---@param options? {beta: number, alpha: number}
---@return nyx.Tensor
function Tensor:baddbmm(a, b, options)
  local beta, alpha = factors("baddbmm", self, options)
  of_dims("baddbmm", "a", a, 3)
  of_dims("baddbmm", "b", b, 3)
  if a:size(1) ~= b:size(1) then return a:bmm(b) end -- which says what is wrong
  return plus_matmul("baddbmm", self, beta, alpha, a, b)
end

docs.addbmm = { "linear algebra", "x:addbmm(a, b, {beta, alpha}): beta x + alpha (the sum of " ..
  "all matrices of a:bmm(b)), as addmm" }
--- beta x + alpha (the sum over the batch of the products of matrices): one product whose
--- inner dimension is batch and inner dimension of both.
---@param a nyx.Tensor
---@param b nyx.Tensor
---@param options? {beta: number, alpha: number}
---@return nyx.Tensor
function Tensor:addbmm(a, b, options)
  local beta, alpha = factors("addbmm", self, options)
  of_dims("addbmm", "a", a, 3)
  of_dims("addbmm", "b", b, 3)
  if a:size(1) ~= b:size(1) or a:size(3) ~= b:size(2) then
    check.fail("addbmm: 'a' is %s, 'b' is %s, expected batches of the same number, and as many " ..
      "columns in a's matrices as b's have rows", check.describe(a), check.describe(b))
  end
  return plus("addbmm", self, beta, alpha, nyx.einsum("bik,bkj->ij", a, b))
end

-- ---------------------------------------------------------------- chains

-- split[i][j]: where the product of the matrices i to j is cut in two, so that all products
-- take fewest multiplications; rows[i] is the number of rows of matrix i, rows[n + 1] the
-- columns of the last one.
local function best_order(rows)
  local n, split, work = #rows - 1, {}, {}
  for i = 1, n do split[i], work[i] = {}, { [i] = 0 } end
  for length = 2, n do
    for i = 1, n - length + 1 do
      local j = i + length - 1
      for k = i, j - 1 do
        local all = work[i][k] + work[k + 1][j] + rows[i] * rows[k + 1] * rows[j + 1]
        if not work[i][j] or all < work[i][j] then work[i][j], split[i][j] = all, k end
      end
    end
  end
  return split
end

local function chain(matrices, split, i, j)
  if i == j then return matrices[i] end
  local k = split[i][j]
  return chain(matrices, split, i, k):matmul(chain(matrices, split, k + 1, j))
end

docs.multi_dot = { "linear algebra", "nyx.multi_dot({a, b, ...}): the product of two or more " ..
  "matrices, in the order that takes fewest multiplications; the first may be a vector, a row, " ..
  "and the last one, a column" }
--- The product of two or more matrices, in the best order; the first and the last may be
--- vectors.
---@param matrices nyx.Tensor[]
---@return nyx.Tensor
function nyx.multi_dot(matrices)
  check.type("multi_dot", "matrices", matrices, "table")
  local n, rows, all = #matrices, {}, {}
  if n < 2 then check.fail("multi_dot: %d matrices, expected at least 2", n) end
  for i = 1, n do
    local name = ("matrices[%d]"):format(i)
    local x = check.tensor("multi_dot", name, matrices[i])
    if x.ndim == 1 and (i == 1 or i == n) then x = x:unsqueeze(i == 1 and 1 or 2) end
    of_dims("multi_dot", name, x, 2)
    if i > 1 and all[i - 1]:size(2) ~= x:size(1) then
      check.fail("multi_dot: matrices[%d] is (%s), matrices[%d] (%s); expected as many rows as " ..
        "the one before has columns", i - 1, table.concat(all[i - 1].shape, "x"), i,
        table.concat(x.shape, "x"))
    end
    all[i], rows[i], rows[i + 1] = x, x:size(1), x:size(2)
  end
  local product = chain(all, best_order(rows), 1, n)
  if matrices[n].ndim == 1 then product = product:squeeze(-1) end
  return matrices[1].ndim == 1 and product:squeeze(matrices[n].ndim == 1 and -1 or 1) or product
end

-- ---------------------------------------------------------------- others

-- x repeated `times` times along `dim`, one of its last two dimensions, which become one.
local function rows_of(x, dim, times)
  local shape = x.shape
  shape[#shape + 1 + dim] = times
  x = x:expand(shape):contiguous()
  shape[#shape - 1] = shape[#shape - 1] * shape[#shape]
  shape[#shape] = nil
  return x:reshape(shape)
end

docs.kron = { "linear algebra", "x:kron(y): the Kronecker product: y times every element of " ..
  "x, in the place of that element; of up to 4 dimensions, the one of fewer counted from the last" }
--- The Kronecker product: the other tensor times every element, in the place of that element.
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:kron(other)
  check.tensor("kron", "x", self)
  check.tensor("kron", "y", other)
  if self.ndim == 2 and other.ndim == 2 and has_wide_kernel(self) and has_wide_kernel(other) then
    return self:kron_product(other)
  end
  local sizes, others = self.shape, other.shape
  local n = math.max(#sizes, #others)
  if n > 4 then check.fail("kron: a tensor of %d dimensions, expected at most 4", n) end
  local shape, left, right = {}, {}, {}
  for d = 1, n do
    local p, q = sizes[d - n + #sizes] or 1, others[d - n + #others] or 1
    left[2 * d - 1], left[2 * d] = p, 1
    right[2 * d - 1], right[2 * d] = 1, q
    shape[d] = p * q
  end
  local x, y = self:reshape(left), other:reshape(right)
  if n >= 2 and right[2 * n] < 16 and x:numel() * y:numel() >= 8192 then
    -- Whole rows of the result at a time, not of the few elements that y has in a row.
    x, y = rows_of(x, -1, right[2 * n]), rows_of(y, -2, left[2 * n - 1])
  end
  return (x * y):reshape(shape)
end

docs.cross = { "linear algebra", "x:cross(y, dim): the cross product of vectors of 3 elements " ..
  "along dim (the first dimension of size 3); other dimensions broadcast" }
--- The cross product of vectors of 3 elements.
---@param other nyx.Tensor
---@param dim? integer default the first dimension of size 3
---@return nyx.Tensor
function Tensor:cross(other, dim)
  check.tensor("cross", "x", self)
  check.tensor("cross", "y", other)
  for d = 1, dim == nil and self.ndim or 0 do
    if self:size(d) == 3 then
      dim = d - self.ndim - 1
      break
    end
  end
  if dim == nil then
    check.fail("cross: 'x' is %s, expected a dimension of size 3", check.describe(self))
  end
  if self:size(dim) ~= 3 or other:size(dim) ~= 3 then
    check.fail("cross: x is %s, y is %s, expected size 3 along dimension %.0f of both",
      check.describe(self), check.describe(other), dim)
  end
  if has_wide_kernel(self) and has_wide_kernel(other) and self:is_same_size(other) then
    return self:cross_product(other, dim)
  end
  -- Five planes, 1 2 3 1 2: what the results need first is in 2 to 4, the other in 3 to 5.
  local n = math.max(self.ndim, other.ndim)
  local function planes(v)
    v = v:movedim(dim, 1)
    v = nyx.cat({ v, v:narrow(1, 1, 2) }, 1)
    while v.ndim < n do v = v:unsqueeze(2) end
    return v:narrow(1, 2, 3), v:narrow(1, 3, 3)
  end
  local x_next, x_last = planes(self)
  local y_next, y_last = planes(other)
  local product = x_last * y_next
  if product:is_floating_point() then
    product = product:addcmul(x_next, y_last, { value = 1, beta = -1 })
  else
    product = x_next * y_last - product
  end
  return product:movedim(1, dim):contiguous()
end

-- Squares that came out less than this become it, and have no gradient.
local least = { float64 = 2 ^ -1020, float32 = 2 ^ -120, float16 = 2 ^ -14, bfloat16 = 2 ^ -120 }

-- Distances by |x|^2 + |y|^2 - 2 x y.
local function euclidean(x, y)
  local a, b = x:square():sum(-1, true), y:square():sum(-1):unsqueeze(-2)
  local squared = ((x * -2):matmul(y:transpose(-2, -1)) + a):add_(b)
  return squared:clamp({ min = least[squared.dtype] or 0 }):sqrt_()
end

-- Columns from which products of matrices are faster than a kernel that goes by differences.
local DIRECT = 48

-- Elements that are worked on at a time where every pair of rows needs a difference.
local ROOM = 2 ^ 18

docs.cdist = { "linear algebra", "x:cdist(y, p): the p-norm (2) of the difference of every " ..
  "row of x and every row of y, (..., rows of x, rows of y). For p = 2, more than 25 rows and " ..
  "48 columns or more by products of matrices: faster, and inexact for rows that are nearly " ..
  "equal" }
--- The p-norm of the difference of every row of one matrix and every row of another; leading
--- dimensions are batches and broadcast.
---@param other nyx.Tensor
---@param p? number default 2
---@return nyx.Tensor
function Tensor:cdist(other, p)
  check.tensor("cdist", "x", self)
  check.tensor("cdist", "y", other)
  p = check.number("cdist", "p", p or 2, 0)
  if self.ndim < 2 or other.ndim < 2 or self:size(-1) ~= other:size(-1) then
    check.fail("cdist: x is %s, y is %s, expected at least 2 dimensions, the last of equal size",
      check.describe(self), check.describe(other))
  end
  local rows, others, columns = self:size(-2), other:size(-2), self:size(-1)
  local kernel = has_wide_kernel(self) and has_wide_kernel(other)
  local many = (rows > 25 or others > 25) and columns >= (kernel and DIRECT or 8)
  if p == 2 and many then return euclidean(self, other) end
  if kernel and (p == 1 or p == 2 or p == math.huge) then
    return self:distances(other, { p = p })
  end
  local y = other:unsqueeze(-3)
  -- Some rows of x at a time: all differences at once could be far larger than x and y.
  local each = math.max(math.floor(ROOM / math.max(other:numel(), 1)), 1)
  local parts = {}
  for first = 1, math.max(rows, 1), each do
    local x = self:narrow(-2, first, math.min(each, rows - first + 1)):unsqueeze(-2)
    parts[#parts + 1] = (x - y):norm(p, -1)
  end
  return #parts == 1 and parts[1] or nyx.cat(parts, -2)
end

for _, name in ipairs { "dot", "vdot", "mv", "mm", "outer", "ger", "addmm", "addmv", "addr",
  "baddbmm", "addbmm", "kron", "cross", "cdist" } do
  nyx[name] = Tensor[name]
end

return {}
