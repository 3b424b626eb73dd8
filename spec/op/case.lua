-- Inputs for the data-driven spec: random tensors in every layout, and the calls that ops
-- name in their `cases`. Read next: op_spec.lua, core/include/nyx/op.h (the syntax).
local nyx = require "nyx"

local unpack = table.unpack or unpack -- luacheck: ignore

local M = {}

-- A small generator of its own: cases do not depend on what is being tested.
local state = 12345
function M.seed(n)
  state = n % 2147483647
  if state <= 0 then state = state + 2147483646 end
end
local function random()
  state = state * 48271 % 2147483647
  return state / 2147483647
end

function M.product(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

-- Whether a row of floats has a derivative by its input i that nobody has written down: then the
-- input counts as a constant.
function M.constant(op, i)
  return not op.gradients[i] and not pcall(nyx.derivative, op.name, { by = ("xyz"):sub(i, i) })
end

local integer = { int8 = true, uint8 = true, int32 = true, int64 = true }
M.is_float = { float32 = true, float64 = true, float16 = true, bfloat16 = true }

-- n numbers of a dtype in lo..hi. Floats keep a distance from each other and from whole
-- numbers, where rows have kinks and ties.
function M.values(n, dtype, lo, hi)
  local out = {}
  for i = 1, n do
    if dtype == "bool" then
      out[i] = random() < 0.5
    elseif integer[dtype] then
      local low = math.ceil(dtype == "uint8" and math.max(lo, 0) or lo)
      local high = math.max(math.floor(hi), low)
      out[i] = low + math.floor(random() * (high - low + 1))
    else
      local v = lo + (hi - lo) * random()
      if math.abs(v - math.floor(v + 0.5)) < 0.02 then v = v + (v + 0.05 < hi and 0.04 or -0.04) end
      out[i] = v
    end
  end
  return out
end

function M.tensor(shape, dtype, lo, hi)
  local flat = nyx.tensor(M.values(M.product(shape), dtype, lo, hi), { dtype = dtype })
  return flat:reshape(shape)
end

-- The same values over other strides: every dimension reversed in memory, with gaps.
function M.strided(t)
  if t:dim() == 0 then return t end
  local order, wide = {}, {}
  for d = 1, t:dim() do
    order[d] = t:dim() + 1 - d
    wide[d] = t:size(t:dim() + 1 - d)
  end
  wide[#wide] = wide[#wide] * 2
  local room = nyx.zeros(wide, { dtype = t.dtype })
  local view = room:narrow(#wide, 1, t:size(1), 2)
  nyx.no_grad(function() view:copy_(t:detach():permute(order)) end)
  return view:permute(order)
end

-- Matrices far from singular, with what makes them so off the diagonal, or on it (dominant);
-- or symmetric positive-definite ones.
function M.matrices(kind, shape, dtype)
  local x, ndim = M.tensor(shape, "float64", -1, 1), #shape
  if kind == "definite" then
    local n = math.max(shape[ndim], 1)
    local square = x:matmul(x:transpose(-1, -2)) / n
    return (square + nyx.eye(shape[ndim], { dtype = "float64" })):to(dtype)
  end
  local most = math.min(shape[ndim - 1], shape[ndim])
  local large = nyx.zeros({ shape[ndim - 1], shape[ndim] }, { dtype = "float64" })
  for i = 1, most do large[i][kind == "regular" and i % most + 1 or i] = 3 end
  return (x + large):to(dtype)
end

-- "dim=1 keepdim=true sizes={2,3}" as a table; words are strings, but for booleans.
local function attributes(text)
  local out = {}
  for name, value in text:gmatch "([%w_]+)=(%b{})" do
    local list = {}
    for item in value:sub(2, -2):gmatch "[^,%s]+" do list[#list + 1] = tonumber(item) or item end
    out[name] = list
  end
  for name, value in text:gsub("[%w_]+=%b{}", ""):gmatch "([%w_]+)=(%S+)" do
    if value == "true" or value == "false" then
      out[name] = value == "true"
    else
      out[name] = tonumber(value) or value
    end
  end
  return out
end

local kinds = { definite = true, regular = true, dominant = true }

-- The calls of an op: {inputs = {{name, shape, below}...}, attrs = {...}, text = line}.
function M.calls(op)
  local calls = {}
  for line in (op.cases or ""):gmatch "[^\n]+" do
    local before, after = line:match "^(.-);(.*)$"
    local call = { inputs = {}, attrs = attributes(after or ""), text = line }
    for name, sizes, below in (before or line):gmatch "([%w_]+)(%b())<?(%w*)" do
      local shape = {}
      for size in sizes:gmatch "%d+" do shape[#shape + 1] = tonumber(size) end
      call.inputs[#call.inputs + 1] =
        { name = name, shape = shape, below = tonumber(below), mask = below == "bool",
          dtype = below:match "^u?int%d+$" or below:match "^float%d+$",
          matrices = kinds[below] and below,
          complex = below:match "^complex%d+$" ~= nil }
    end
    calls[#calls + 1] = call
  end
  return calls
end

-- Complex inputs are made as pairs of floats and become complex just before the call, complex
-- results are looked at as pairs: what is checked is real everywhere.
function M.shape_of(input)
  if not input.complex then return input.shape end
  local shape = { unpack(input.shape) }
  shape[#shape + 1] = 2
  return shape
end

function M.as_input(input, t)
  return t and input.complex and t:contiguous():view_as_complex() or t
end

function M.as_result(t)
  return nyx.is_tensor(t) and t.dtype:find "^complex" and t:view_as_real() or t
end

-- Arguments of a call: inputs in the op's order (nil where left out), then the options.
function M.arguments(op, call, dtype)
  local by_name, list, complex = {}, {}, {}
  for i, input in ipairs(call.inputs) do
    local t
    if input.below then
      t = M.tensor(input.shape, "int64", 1, input.below)
    elseif input.mask then
      t = M.tensor(input.shape, "bool", 0, 1)
    elseif input.matrices then
      t = M.matrices(input.matrices, input.shape, dtype)
    else
      t = M.tensor(M.shape_of(input), input.dtype or dtype, -2, 2)
      local positive = input.name:match "var" or input.name:match "sq"
      if M.is_float[t.dtype] and positive then t = t:abs() + 0.5 end
    end
    by_name[input.name] = t
    list[i] = t
    if input.complex then complex[t] = input end
  end
  if op.variadic then return { list, n = 1 }, list end
  local args = { n = 0, complex = complex }
  for i, input in ipairs(op.inputs) do
    args[i] = by_name[input.name]
    if args[i] then args.n = i end
  end
  return args, list
end

-- Calls the op with arguments, some of whose tensors are replaced.
function M.call(op, call, args, replace)
  local actual = { n = args.n }
  if op.variadic then
    actual[1] = {}
    for i, t in ipairs(args[1]) do actual[1][i] = replace and replace[t] or t end
  else
    for i = 1, args.n do
      actual[i] = args[i] and replace and replace[args[i]] or args[i]
      if args.complex[args[i]] then actual[i] = M.as_input(args.complex[args[i]], actual[i]) end
    end
  end
  if next(call.attrs) then
    actual.n = actual.n + 1
    actual[actual.n] = call.attrs
  end
  return nyx[op.name](unpack(actual, 1, actual.n))
end

-- The same, with what a test looks at.
function M.apply(op, call, args, replace)
  local results = { M.call(op, call, args, replace) }
  for k = 1, #results do results[k] = M.as_result(results[k]) end
  return unpack(results)
end

return M
