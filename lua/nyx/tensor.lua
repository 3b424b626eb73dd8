-- Methods of tensors and functions of nyx.* that are written with ops, in Lua. All others
-- are made from the op table (bindings/lua/call.c). Their help texts are in `docs` below.
-- Read next: help.lua.
local nyx = require "nyx"
local check = require "nyx.check"

local unpack = unpack or table.unpack

--- A tensor: numbers of one dtype in a box of up to 8 dimensions. Positions and dimensions
--- count from 1, from the end with -1.
---@class nyx.Tensor
---@field shape integer[] the sizes
---@field dtype string "float32", "int64", "bool", ...
---@field device string "cpu", "opencl", ...
---@field ndim integer the number of dimensions
---@field grad nyx.Tensor? what backward added up; assign nil to clear it
---@field requires_grad boolean whether ops on it are recorded; leaves can be assigned
---@field is_leaf boolean whether no recorded op made it
---@field grad_fn nyx.Node? the node of the graph that made it
---@operator add(nyx.Tensor|number): nyx.Tensor
---@operator sub(nyx.Tensor|number): nyx.Tensor
---@operator mul(nyx.Tensor|number): nyx.Tensor
---@operator div(nyx.Tensor|number): nyx.Tensor
---@operator mod(nyx.Tensor|number): nyx.Tensor
---@operator pow(nyx.Tensor|number): nyx.Tensor
---@operator unm: nyx.Tensor
---@operator len: integer
local Tensor = nyx.Tensor

local docs = {} -- name -> {group, text}; read by help.lua

-- ---------------------------------------------------------------- pieces

docs.split = { "view", "x:split(size, dim): pieces of `size` positions along dim (1), as a " ..
  "table of views; the last may be smaller. A table of sizes gives pieces of these sizes." }
--- Pieces of `size` positions along `dim` (1), the last maybe smaller; or of given sizes.
---@param size integer|integer[]
---@param dim? integer
---@return nyx.Tensor[] views
function Tensor:split(size, dim)
  dim = check.dim("split", self, dim or 1)
  local length, pieces = self:size(dim), {}
  if type(size) == "table" then
    local start = 1
    for i = 1, #size do
      local n = check.integer("split", "size", size[i], 0)
      if start + n - 1 > length then
        check.fail("split: the sizes add up to more than %d, the size of dimension %d", length, dim)
      end
      pieces[i] = self:narrow(dim, start, n)
      start = start + n
    end
    if start ~= length + 1 then
      check.fail("split: the sizes add up to %.0f, dimension %d has size %d", start - 1, dim,
        length)
    end
    return pieces
  end
  check.integer("split", "size", size)
  for start = 1, math.max(length, 1), size do
    pieces[#pieces + 1] = self:narrow(dim, start, math.min(size, length - start + 1))
  end
  return pieces
end

docs.chunk = { "view", "x:chunk(n, dim): at most n pieces of equal size along dim (1), as a " ..
  "table of views; the last may be smaller" }
--- At most `n` pieces of equal size along `dim` (1); the last may be smaller.
---@param n integer
---@param dim? integer
---@return nyx.Tensor[] views
function Tensor:chunk(n, dim)
  check.integer("chunk", "n", n)
  dim = check.dim("chunk", self, dim or 1)
  return self:split(math.max(math.ceil(self:size(dim) / n), 1), dim)
end

docs.unbind = { "view", "x:unbind(dim): the positions of dim (1), which disappears, as a table " ..
  "of views" }
--- The positions of `dim` (1), which disappears.
---@param dim? integer
---@return nyx.Tensor[] views
function Tensor:unbind(dim)
  dim = check.dim("unbind", self, dim or 1)
  local parts = {}
  for i = 1, self:size(dim) do parts[i] = self:select(dim, i) end
  return parts
end

docs.slice = { "view", "x:slice(dim, first, last, step): the positions first to last of dim, " ..
  "both included; last is the end when left out; a view" }
--- The positions `first` to `last` of `dim`, both included.
---@param dim integer
---@param first integer
---@param last? integer default -1
---@param step? integer default 1
---@return nyx.Tensor view
function Tensor:slice(dim, first, last, step)
  dim = check.dim("slice", self, dim)
  local size = self:size(dim)
  step = step or 1
  if type(step) ~= "number" or step % 1 ~= 0 or step < 1 then
    check.fail("slice: 'step' is %s, expected an integer of at least 1; flip reverses",
      check.describe(step))
  end
  -- From 1. An empty range may begin behind the end, or end before the beginning.
  local function position(name, value, low, high)
    if type(value) ~= "number" or value % 1 ~= 0 then
      check.fail("slice: '%s' is %s, expected a position, from 1, or from the end with -1", name,
        check.describe(value))
    end
    local p = value >= 0 and value or value + size + 1
    if p < low or p > high then
      check.fail("slice: '%s' is %.0f, which is out of range for dimension %d of size %d; "
        .. "positions count from 1", name, value, dim, size)
    end
    return p
  end
  first = position("first", first, 1, size + 1)
  last = position("last", last or -1, 0, size)
  if last < first - 1 then
    check.fail("slice: 'last' is %d, before 'first', %d; both are included, and flip reverses",
      last, first)
  end
  return self:narrow(dim, first, math.floor((last - first) / step) + 1, step)
end

-- ---------------------------------------------------------------- shapes

docs.t = { "view", "x:t(): a matrix with rows and columns exchanged; a view" }
--- A matrix with rows and columns exchanged.
---@return nyx.Tensor view
function Tensor:t()
  if self.ndim > 2 then
    check.fail("t: %s; expected at most two dimensions, see transpose and permute",
      check.describe(self))
  end
  return self.ndim == 2 and self:transpose(1, 2) or self:alias()
end

docs.view_as = { "view", "x:view_as(y): x in the shape of y; a view" }
---@param other nyx.Tensor
---@return nyx.Tensor view
function Tensor:view_as(other)
  return self:view(check.tensor("view_as", "other", other).shape)
end

docs.reshape_as = { "view", "x:reshape_as(y): x in the shape of y" }
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:reshape_as(other)
  return self:reshape(check.tensor("reshape_as", "other", other).shape)
end

docs.expand_as = { "view", "x:expand_as(y): x expanded to the shape of y; a view" }
---@param other nyx.Tensor
---@return nyx.Tensor view
function Tensor:expand_as(other)
  return self:expand(check.tensor("expand_as", "other", other).shape)
end

docs.unflatten = { "view", "x:unflatten(dim, sizes): dim made into several of the given sizes" }
--- One dimension made into several; one of the sizes may be -1.
---@param dim integer
---@param sizes integer[]
---@return nyx.Tensor
function Tensor:unflatten(dim, sizes)
  dim = check.dim("unflatten", self, dim)
  check.type("unflatten", "sizes", sizes, "table")
  local shape, product, unknown = self.shape, 1, nil
  for i, size in ipairs(sizes) do
    if size == -1 then unknown = i else product = product * size end
  end
  local parts = { unpack(sizes) }
  if unknown then parts[unknown] = math.floor(shape[dim] / math.max(product, 1)) end
  table.remove(shape, dim)
  for i = #parts, 1, -1 do table.insert(shape, dim, parts[i]) end
  return self:reshape(shape)
end

docs.sum_to_size = { "reduction", "x:sum_to_size(shape): x summed over the dimensions in which " ..
  "`shape` broadcasts to it" }
--- The opposite of expand: sums over what would be repeated.
---@param shape integer[]
---@return nyx.Tensor
function Tensor:sum_to_size(shape)
  check.type("sum_to_size", "shape", shape, "table")
  for d = 1, #shape do check.integer("sum_to_size", ("shape[%d]"):format(d), shape[d], 0) end
  local own, lead = self.shape, self.ndim - #shape
  local dims, fits = {}, lead >= 0
  for d = 1, #own do
    local wanted = d > lead and shape[d - lead] or nil
    if wanted ~= own[d] then
      fits = fits and (wanted == nil or wanted == 1)
      dims[#dims + 1] = d
    end
  end
  if not fits then
    check.fail("sum_to_size: shape (%s) does not broadcast to (%s)", table.concat(shape, "x"),
      table.concat(own, "x"))
  end
  if #dims == 0 then return self end
  return self:sum(dims, true):reshape(shape)
end

-- ---------------------------------------------------------------- conversion

for name, dtype in pairs { float = "float32", double = "float64", half = "float16",
  bfloat16 = "bfloat16", char = "int8", byte = "uint8", int = "int32", long = "int64",
  bool = "bool" } do
  docs[name] = { "conversion", ("x:%s(): x as %s"):format(name, dtype) }
  Tensor[name] = function(self) return self:to(dtype) end
end

docs.type_as = { "conversion", "x:type_as(y): x in the dtype of y" }
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:type_as(other)
  return self:to(check.tensor("type_as", "other", other).dtype)
end

docs.cpu = { "conversion", "x:cpu(): x in the computer's memory" }
---@return nyx.Tensor
function Tensor:cpu() return self:to("cpu") end

-- ---------------------------------------------------------------- comparison of tensors

docs.equal = { "comparison", "x:equal(y): whether shapes and all elements are equal; a boolean" }
--- Whether shapes and all elements are equal.
---@param other nyx.Tensor
---@return boolean
function Tensor:equal(other)
  return self:is_same_size(other) and self:eq(other):all():item()
end

docs.allclose = { "comparison", "x:allclose(y, rtol, atol, equal_nan): whether isclose holds " ..
  "for all elements; a boolean" }
--- Whether all elements differ by at most atol + rtol * |other|; see isclose.
---@param other nyx.Tensor|number
---@param rtol? number default 1e-5
---@param atol? number default 1e-8
---@param equal_nan? boolean
---@return boolean
function Tensor:allclose(other, rtol, atol, equal_nan)
  return self:isclose(other, rtol, atol, equal_nan):all():item()
end

-- ---------------------------------------------------------------- like another tensor

-- Whether the channels of a place lie side by side in memory, then the places of a row, then
-- rows and images, perhaps with gaps: nyx__lies_last of core/tensor/shape.c.
local function lies_last(x)
  local shape, stride = x.shape, x:stride()
  local least = 0
  for i, d in ipairs { 2, 4, 3, 1 } do
    if stride[d] < least or stride[d] == 0 or i == 4 and least == stride[2] then return false end
    least = shape[d] > 1 and stride[d] * shape[d] or stride[d]
  end
  return true
end

-- A tensor like x, of its dtype, device and memory format unless said otherwise, from
-- make(shape, options). What is in it does not depend on how it lies in memory.
local function like(where, x, options, make)
  check.tensor(where, "x", x)
  options = check.options(where, options, "dtype device memory_format requires_grad")
  local last = x.ndim == 4 and not x:is_contiguous() and lies_last(x)
  local y = make(x.shape, { dtype = options.dtype or x.dtype,
    device = options.device or x.device })
  y = y:to { memory_format = options.memory_format or last and "channels_last" or "contiguous" }
  return options.requires_grad and y:requires_grad_(true) or y
end

for name, what in pairs { zeros = "zeros", ones = "ones", empty = "undefined values",
  rand = "uniform random numbers", randn = "normal random numbers" } do
  local where = name .. "_like"
  docs[where] = { "creation",
    ("nyx.%s(x, options): %s, shaped like x and in its memory format"):format(where, what) }
  nyx[where] = function(x, options) return like(where, x, options, nyx[name]) end
end

docs.full_like = { "creation", "nyx.full_like(x, value, options): `value`, shaped like x and " ..
  "in its memory format" }
---@param x nyx.Tensor
---@param value number
---@param options? {dtype: string, device: string, memory_format: string, requires_grad: boolean}
---@return nyx.Tensor
function nyx.full_like(x, value, options)
  return like("full_like", x, options, function(shape, made)
    return nyx.full(shape, check.type("full_like", "value", value, "number"), made)
  end)
end

-- ---------------------------------------------------------------- weights of few bits

docs.quantize_weight = { "neural", "nyx.quantize_weight(w, options): a weight (outputs, " ..
  "features) as integers for linear_quantized: packed, scales and, unless symmetric, zeros. " ..
  "Options: bits (4; or 8), group (features with a scale of their own; all when left out), " ..
  "symmetric (true: no zero points), dtype (of the scales, \"float32\")" }
--- A weight of few bits for nyx.linear_quantized. Each group of features goes from its
--- greatest magnitude (symmetric) or its least to its greatest value; rounding is to nearest.
---@param w nyx.Tensor (outputs, features)
---@param options? {bits: integer, group: integer, symmetric: boolean, dtype: string}
---@return nyx.Tensor packed int8 (outputs, features), or uint8 (outputs, features / 2)
---@return nyx.Tensor scales (outputs, groups)
---@return nyx.Tensor? zeros the same
function nyx.quantize_weight(w, options)
  local where = "quantize_weight"
  check.tensor(where, "w", w)
  options = check.options(where, options, "bits group symmetric dtype")
  local bits = check.integer(where, "bits", options.bits or 4)
  if bits ~= 4 and bits ~= 8 then check.fail("%s: 'bits' is %d, expected 4 or 8", where, bits) end
  if w.ndim ~= 2 or w:numel() == 0 then
    check.fail("%s: 'w' is %s, expected 2 dimensions (outputs, features) that are not 0", where,
      check.describe(w))
  end
  local outputs, features = w:size(1), w:size(2)
  local group = check.integer(where, "group", options.group or features)
  if features % group ~= 0 or bits == 4 and group % 2 ~= 0 then
    check.fail("%s: 'group' is %d, expected %s that divides the %d features of (%s)", where, group,
      bits == 4 and "an even number" or "a number", features, table.concat(w.shape, "x"))
  end
  local levels, least = 2 ^ bits - 1, bits == 4 and 0 or -128
  return nyx.no_grad(function()
    local rows = w:detach():to("float32"):reshape(outputs, features / group, group)
    local low, high = rows:amin(-1, true):clamp { max = 0 }, rows:amax(-1, true):clamp { min = 0 }
    local symmetric = options.symmetric ~= false
    local range = symmetric and nyx.maximum(-low, high) * 2 or high - low
    local scales = (range / levels):to(options.dtype or "float32"):to "float32"
    scales = scales:masked_fill(scales:eq(0), 1)
    local zeros
    if not symmetric then zeros = ((-low / scales):round() + least):clamp(least, least + levels) end
    local q = ((rows / scales):round() + (zeros or bits == 4 and 8 or 0))
      :clamp(least, least + levels):reshape(outputs, features)
    local function numbers(t) return t:squeeze(-1):to(options.dtype or "float32") end
    if bits == 4 then
      local pairs_of = q:reshape(outputs, features / 2, 2)
      q = pairs_of:select(-1, 1) + pairs_of:select(-1, 2) * 16
    end
    return q:to(bits == 4 and "uint8" or "int8"), numbers(scales), zeros and numbers(zeros)
  end)
end

-- ---------------------------------------------------------------- long lists

-- Ops take 64 tensors at once; longer lists are joined in parts.
local MOST = 64
local cat, stack = nyx.cat, nyx.stack

---@param tensors nyx.Tensor[]
---@param ... any dim (1), options
---@return nyx.Tensor
function nyx.cat(tensors, ...)
  if type(tensors) ~= "table" or #tensors <= MOST then return cat(tensors, ...) end
  local parts = {}
  for first = 1, #tensors, MOST do
    local part = {}
    for i = first, math.min(first + MOST - 1, #tensors) do part[#part + 1] = tensors[i] end
    parts[#parts + 1] = cat(part, ...)
  end
  return nyx.cat(parts, ...)
end

---@param tensors nyx.Tensor[]
---@param ... any dim (1), options
---@return nyx.Tensor
function nyx.stack(tensors, ...)
  if type(tensors) ~= "table" or #tensors <= MOST then return stack(tensors, ...) end
  local parts = {}
  for first = 1, #tensors, MOST do
    local part = {}
    for i = first, math.min(first + MOST - 1, #tensors) do part[#part + 1] = tensors[i] end
    parts[#parts + 1] = stack(part, ...)
  end
  return nyx.cat(parts, ...)
end

-- ---------------------------------------------------------------- x[tensor]

local function is_mask(key)
  return key.dtype == "bool"
end

-- A mask over the dimensions of x from `dim` on as positions: one tensor for each.
local function positions(x, mask, dim)
  local own, shape, covered = x.shape, mask.shape, {}
  for d = 1, #shape do covered[d] = own[dim + d - 1] end
  if #shape == 0 or table.concat(shape, "x") ~= table.concat(covered, "x") then
    check.fail("x[...]: the mask has shape (%s), expected (%s), as of x", table.concat(shape, "x"),
      table.concat(#shape == 0 and own or covered, "x"))
  end
  local found, list = mask:nonzero(), {}
  for d = 1, mask.ndim do list[d] = found:select(2, d) end
  return list
end

-- What a key with tensors picks: the tensors of positions, if they come first and everything
-- after them is whole; or else a key without the tensor, and the one dimension it is in.
local function plan(x, key)
  if nyx.is_tensor(key) then
    return is_mask(key) and positions(x, key, 1) or { key }
  end
  local list, first, last, whole = {}, nil, nil, true
  for d = 1, #key do
    local item = key[d]
    if nyx.is_tensor(item) then
      if is_mask(item) and item.ndim ~= 1 then
        check.fail("x[...]: a mask inside a key must have one dimension, got %s",
          check.describe(item))
      end
      list[#list + 1] = is_mask(item) and positions(x, item, d)[1] or item
      first, last = first or d, d
    elseif type(item) ~= "table" or #item > 0 then
      whole = false
    end
  end
  if first == 1 and last == #list and whole then return list end
  if #list > 1 then
    check.fail("x[...]: a key with several tensors must begin with them and leave the other "
      .. "dimensions whole ({})")
  end
  if list[1].ndim ~= 1 then
    check.fail("x[...]: positions among other keys must have one dimension, got %s",
      check.describe(list[1]))
  end
  local rest, dim = {}, 1
  for d = 1, #key do
    rest[d] = d == first and {} or key[d]
    if d < first and type(key[d]) == "table" then dim = dim + 1 end
  end
  return list, rest, dim
end

local function fits_whole(x, mask)
  return nyx.is_tensor(mask) and is_mask(mask) and x:is_same_size(mask)
end

local function read(x, key)
  if fits_whole(x, key) then return x:masked_select(key) end
  local list, rest, dim = plan(x, key)
  if rest then return x[rest]:index_select(list[1], dim) end
  return x:index(unpack(list))
end

-- `value` is a number or boolean that x's dtype has, or a tensor of its kind: index.c.
local function write(x, key, value)
  local is_number = not nyx.is_tensor(value)
  if fits_whole(x, key) then
    if is_number then
      x:masked_fill_(key, type(value) == "boolean" and (value and 1 or 0) or value)
    elseif value:numel() == 1 then
      x:copy_(nyx.where(key, value:to(x.dtype):reshape({}), x))
    elseif value:numel() ~= value:size(-1) then
      check.fail("x[...]: the value is %s, expected one dimension, with a number for each " ..
        "element that the mask selects", check.describe(value))
    else
      x:masked_scatter_(key, value:to(x.dtype), true)
    end
    return
  end
  if type(value) == "number" then value = nyx.tensor(value, { dtype = x.dtype }) end
  if type(value) == "boolean" then value = nyx.tensor(value):to(x.dtype) end
  local list, rest, dim = plan(x, key)
  if not rest then
    x:index_put_(value:to(x.dtype), unpack(list))
    return
  end
  local region = x[rest]
  local order, back = { dim }, {} -- the indexed dimension first
  for d = 1, region.ndim do
    if d ~= dim then order[#order + 1] = d end
  end
  for d = 1, #order do back[order[d]] = d end
  local shape = region.shape
  shape[dim] = list[1]:size(1)
  local values = value:to(x.dtype):expand(shape):permute(order)
  x[rest] = region:permute(order):index_put(values, list[1]):permute(back)
end

nyx.set_index(read, write)

return { docs = docs }
