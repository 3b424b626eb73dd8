-- Everyday functions that are a few ops each, by PyTorch's names, as nyx.<name>(x, ...) and
-- x:<name>(...). Nothing here has a kernel of its own. Read next: products.lua,
-- statistics.lua, tensor.lua.
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

-- ---------------------------------------------------------------- diagonals

docs.diag = { "linear algebra", "x:diag(k): a matrix with the vector x on its diagonal k (0), or" ..
  " the diagonal k of the matrix x; above the main one for k > 0" }
--- A matrix with a vector on its diagonal, or the diagonal of a matrix.
---@param k? integer default 0
---@return nyx.Tensor
function Tensor:diag(k)
  check.tensor("diag", "x", self)
  k = check.integer("diag", "k", k or 0, -2 ^ 31)
  if self.ndim == 2 then return self:diagonal(k) end
  of_dims("diag", "x", self, 1)
  local n = self:size(1)
  local size = n + math.abs(k)
  return self:embed { shape = { size, size }, offset = k > 0 and k or -k * size,
    stride = { size + 1 } }
end

docs.trace = { "linear algebra", "x:trace(): the sum of the diagonal of a matrix" }
--- The sum of the diagonal of a matrix.
---@return nyx.Tensor
function Tensor:trace() return of_dims("trace", "x", self, 2):diagonal():sum() end

-- ---------------------------------------------------------------- comparison, nan

docs.isclose = { "comparison", "x:isclose(y, rtol, atol, equal_nan): where elements differ by at" ..
  " most atol + rtol * |y|; 1e-5 and 1e-8 when left out; nan equals nothing unless equal_nan" }
--- Where elements differ by at most atol + rtol * |other|.
---@param other nyx.Tensor|number
---@param rtol? number default 1e-5
---@param atol? number default 1e-8
---@param equal_nan? boolean
---@return nyx.Tensor bool
function Tensor:isclose(other, rtol, atol, equal_nan)
  check.tensor("isclose", "x", self)
  rtol = check.number("isclose", "rtol", rtol or 1e-5, 0)
  atol = check.number("isclose", "atol", atol or 1e-8, 0)
  if type(other) == "number" then other = nyx.tensor(other, { dtype = self.dtype }) end
  check.tensor("isclose", "y", other)
  local x, y = self:detach(), other:detach()
  local near
  if x.dtype:find "^complex" or y.dtype:find "^complex" then
    x, y = x:to "complex128", y:to "complex128"
    near = (x - y):abs():le(y:abs() * rtol + atol):logical_and(y:abs():lt(math.huge))
    near = near:logical_or(x:eq(y)) -- infinities
  else
    if not x:is_floating_point() then x = x:to "float64" end
    if not y:is_floating_point() then y = y:to "float64" end
    near = x:near(y, { rtol = rtol, atol = atol })
  end
  return equal_nan and near:logical_or(x:isnan():logical_and(y:isnan())) or near
end

docs.nan_to_num = { "selection", "x:nan_to_num(nan, posinf, neginf): x with nan and infinities " ..
  "replaced: by 0 and the greatest and least number of the dtype when left out" }
local greatest = { float64 = 1.7976931348623157e308, float32 = 3.4028234663852886e38,
  float16 = 65504, bfloat16 = 3.3895313892515355e38 }
--- x with nan and infinities replaced.
---@param nan? number default 0
---@param posinf? number default the greatest number of the dtype
---@param neginf? number default the least
---@return nyx.Tensor
function Tensor:nan_to_num(nan, posinf, neginf)
  check.tensor("nan_to_num", "x", self)
  local most = greatest[self.dtype]
  if not most then return self:clone() end
  nan = check.number("nan_to_num", "nan", nan or 0)
  posinf = check.number("nan_to_num", "posinf", posinf or most)
  neginf = check.number("nan_to_num", "neginf", neginf or -most)
  return self:replace_nonfinite(nan, { posinf = posinf, neginf = neginf })
end

-- ---------------------------------------------------------------- along a dimension

docs.diff = { "arithmetic", "x:diff(n, dim): every element minus the one before it along dim " ..
  "(the last), n times (1)" }
--- Every element minus the one before it along `dim`.
---@param n? integer default 1
---@param dim? integer default -1
---@return nyx.Tensor
function Tensor:diff(n, dim)
  check.tensor("diff", "x", self)
  local x = self
  dim = dim or -1
  for _ = 1, math.min(check.integer("diff", "n", n or 1, 0), x:size(dim)) do
    local rest = x:size(dim) - 1
    if rest < 0 then break end
    local later, earlier = x:narrow(dim, 1 + math.min(rest, 1), rest), x:narrow(dim, 1, rest)
    x = x.dtype == "bool" and later:logical_xor(earlier) or later - earlier
  end
  return x
end

docs.float_power = { "arithmetic", "x:float_power(y): x to the power y, in float64" }
--- x to the power y, in float64.
---@param exponent nyx.Tensor|number
---@return nyx.Tensor float64
function Tensor:float_power(exponent)
  check.tensor("float_power", "x", self)
  if type(exponent) ~= "number" then
    exponent = check.tensor("float_power", "y", exponent):to("float64")
  end
  return self:to("float64"):pow(exponent)
end

docs.sgn = { "arithmetic", "x:sgn(): sign" }
Tensor.sgn = Tensor.sign

docs.movedim = { "view", "x:movedim(source, destination): dimension `source` put at " ..
  "`destination`, the others in order; a view" }
--- One dimension put at another place, the others in order.
---@param source integer
---@param destination integer
---@return nyx.Tensor view
function Tensor:movedim(source, destination)
  check.tensor("movedim", "x", self)
  local n, order = self.ndim, {}
  for _, pair in ipairs { { "source", source }, { "destination", destination } } do
    local dim = check.integer("movedim", pair[1], pair[2], -n)
    if dim == 0 or dim > n then
      check.fail("movedim: '%s' is %.0f; %s has dimensions 1 to %d", pair[1], dim,
        check.describe(self), n)
    end
  end
  source = source > 0 and source or source + n + 1
  destination = destination > 0 and destination or destination + n + 1
  for d = 1, n do
    if d ~= source then order[#order + 1] = d end
  end
  table.insert(order, destination, source)
  return self:permute(order)
end

docs.normalize = { "reduction", "x:normalize(p, dim, eps): x divided by its p-norm (2) along dim" ..
  " (2), which counts as at least eps (1e-12)" }
--- x divided by its p-norm along a dimension.
---@param p? number default 2
---@param dim? integer default 2
---@param eps? number default 1e-12
---@return nyx.Tensor
function Tensor:normalize(p, dim, eps)
  check.tensor("normalize", "x", self)
  eps = check.number("normalize", "eps", eps or 1e-12, 0)
  return self / self:norm(p or 2, dim or 2, true):clamp(eps)
end

docs.cosine_similarity = { "reduction", "x:cosine_similarity(y, dim, eps): the cosine of the " ..
  "angle between x and y along dim (2); norms count as at least eps (1e-8)" }
--- The cosine of the angle between two tensors along a dimension.
---@param other nyx.Tensor
---@param dim? integer default 2
---@param eps? number default 1e-8
---@return nyx.Tensor
function Tensor:cosine_similarity(other, dim, eps)
  check.tensor("cosine_similarity", "x", self)
  check.tensor("cosine_similarity", "y", other)
  eps = check.number("cosine_similarity", "eps", eps or 1e-8, 0)
  dim = dim or 2
  return (self * other):sum(dim) / (self:norm(2, dim):clamp(eps) * other:norm(2, dim):clamp(eps))
end

-- ---------------------------------------------------------------- counting

docs.bincount = { "reduction", "x:bincount(minlength): how often each label 1, 2, ... occurs, an" ..
  " int64 tensor of at least minlength (0)" }
--- How often each label 1, 2, ... occurs.
---@param minlength? integer default 0
---@return nyx.Tensor int64
function Tensor:bincount(minlength)
  local labels = of_dims("bincount", "x", self, 1)
  local n = check.integer("bincount", "minlength", minlength or 0, 0)
  if labels:is_floating_point() or labels.dtype == "bool" then
    check.fail("bincount: 'x' has dtype %s, expected integers", labels.dtype)
  end
  labels = labels:to("int64")
  if labels:numel() > 0 then
    if labels:min():item() < 1 then
      check.fail("bincount: label %.0f; labels count from 1", labels:min():item())
    end
    n = math.max(n, labels:max():item())
  end
  if labels.device == "cpu" and n > 0 and n < 2 ^ 31 - 2 then
    return labels:bin_counts { bins = n, min = 0.5, max = n + 0.5 }
  end
  return nyx.zeros({ n }, { dtype = "int64" }):scatter_add(labels, nyx.ones_like(labels), 1)
end

-- ---------------------------------------------------------------- creation

docs.meshgrid = { "creation", "nyx.meshgrid({x, y, ...}): the coordinates of a grid over " ..
  "vectors, a table of views, one for each, all of shape (#x, #y, ...)" }
--- The coordinates of a grid over vectors; the first vector goes along dimension 1.
---@param vectors nyx.Tensor[]
---@return nyx.Tensor[] views
function nyx.meshgrid(vectors)
  check.type("meshgrid", "vectors", vectors, "table")
  local shape, grids = {}, {}
  for i = 1, #vectors do
    shape[i] = of_dims("meshgrid", ("vectors[%d]"):format(i), vectors[i], 1):size(1)
  end
  for i = 1, #vectors do
    local sizes = {}
    for d = 1, #vectors do sizes[d] = d == i and -1 or 1 end
    grids[i] = vectors[i]:reshape(sizes):expand(shape)
  end
  return grids
end

docs.logspace = { "creation", "nyx.logspace(start, stop, steps, {base, dtype}): base (10) to " ..
  "the powers start to stop, both included" }
--- Powers of a base, from base^start to base^stop.
---@param start number
---@param stop number
---@param steps integer
---@param options? {base: number, dtype: string}
---@return nyx.Tensor
function nyx.logspace(start, stop, steps, options)
  options = check.options("logspace", options, "base dtype")
  local base = check.number("logspace", "base", options.base or 10, 0)
  check.number("logspace", "start", start)
  check.number("logspace", "stop", stop)
  local powers = nyx.linspace(start, stop, check.integer("logspace", "steps", steps, 0),
    { dtype = "float64" })
  return nyx.pow(base, powers):to(options.dtype or nyx.get_default_dtype())
end

for name, what in pairs { zeros = "zeros", ones = "ones", empty = "undefined values" } do
  local where = "new_" .. name
  docs[where] = { "creation", ("x:%s(shape, options): %s, in the dtype and on the device of x")
    :format(where, what) }
  Tensor[where] = function(self, shape, options)
    check.tensor(where, "x", self)
    check.type(where, "shape", shape, "table")
    options = check.options(where, options, "dtype device requires_grad")
    return nyx[name](shape, { dtype = options.dtype or self.dtype,
      device = options.device or self.device, requires_grad = options.requires_grad or false })
  end
end

docs.element_size = { "tensor", "x:element_size(): the bytes of one element" }
local sizes = { float64 = 8, int64 = 8, float32 = 4, int32 = 4, float16 = 2, bfloat16 = 2 }
--- The bytes of one element.
---@return integer
function Tensor:element_size()
  return sizes[check.tensor("element_size", "x", self).dtype] or 1
end

-- All but the last ones are functions too, as ops are.
for _, name in ipairs { "diag", "trace", "isclose", "nan_to_num", "diff", "float_power", "sgn",
  "movedim", "normalize", "cosine_similarity", "bincount" } do
  nyx[name] = Tensor[name]
end

return {}
