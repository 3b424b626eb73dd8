-- Nyx's side of the peer suite: answers requests on standard input until it ends. A request
-- is tensors and a piece of Lua, the answer what the Lua returns: tensors, text, or nil.
-- Read next: worker.py (the other end), peer.py (the suite).
--
--   request   "<tensors> <bytes of Lua>\n", the tensors, the Lua
--   answer    "ok <values>\n" and the values, or "error <bytes>\n" and the message
--   a tensor  "t <dtype> <strided> <size>...\n" and its bytes, row-major; a strided one is
--             "t <dtype> 1 <elements in memory> <offset> <size>... <stride>...\n"
--   others    "s <bytes>\n" and the text; "n\n" for nil
local nyx = require "nyx"

local input, output = io.stdin, io.stdout
local unpack = table.unpack or unpack
local bytes_of = { float64 = 8, float32 = 4, float16 = 2, bfloat16 = 2, int64 = 8, int32 = 4,
  int8 = 1, uint8 = 1, bool = 1, complex64 = 8, complex128 = 16 }

local function read_tensor()
  local words = {}
  for word in input:read("*l"):gmatch "%S+" do words[#words + 1] = tonumber(word) or word end
  local dtype, strided = words[2], words[3] == 1
  local shape, stride, count, offset = {}, {}, 1, 0
  if strided then
    count, offset = words[4], words[5]
    local ndim = (#words - 5) / 2
    for d = 1, ndim do shape[d], stride[d] = words[5 + d], words[5 + ndim + d] end
  else
    for d = 4, #words do
      shape[d - 3] = words[d]
      count = count * words[d]
    end
  end
  local size = count * bytes_of[dtype]
  local text = size > 0 and input:read(size) or ""
  if not strided then return nyx.frombuffer(text, dtype, shape) end
  return nyx.frombuffer(text, dtype, { count }):as_strided(shape, stride, offset)
end

local function write_value(value)
  if value == nil then
    output:write("n\n")
  elseif nyx.is_tensor(value) then
    local head = { "t", value.dtype, "0" }
    for _, size in ipairs(value.shape) do head[#head + 1] = ("%d"):format(size) end
    output:write(table.concat(head, " "), "\n", value:detach():tobytes())
  else
    local text = tostring(value)
    output:write("s ", #text, "\n", text)
  end
end

-- What pieces of Lua find beside `nyx` and the tensors `T`.
local environment = setmetatable({ nyx = nyx, nn = nyx.nn, optim = nyx.optim }, { __index = _G })

local function is_float(t) return t.dtype:find "float" ~= nil end

-- The sum of the float tensors of ys (1..n, some nil), each times the weight in its place.
local function weighted(ys, n, weights)
  local sum
  for i = 1, n do
    local y = ys[i]
    if y and nyx.is_tensor(y) and is_float(y) and weights[i] and y.requires_grad then
      local part = (y * weights[i]):sum()
      sum = sum and sum + part or part
    end
  end
  return sum
end

-- Values, gradients and gradients of gradients of f at inputs[1..n], some of them leaves:
-- with L = sum(f(x) v), g = dL/dx for the leaves; with M = sum(g w), h = dM/d(leaves, v).
-- order says how far to go. Returns one list: results, then g, then h, and the number of
-- results.
function environment.differentiate(f, inputs, n, leaves, v, w, order)
  for i = 1, #leaves do leaves[i].requires_grad = true end
  local count_v = 0
  for i, x in pairs(v) do
    if order > 1 then x.requires_grad = true end
    count_v = math.max(count_v, i)
  end
  local ys = { f(unpack(inputs, 1, n)) }
  local results = #ys
  local all, at = {}, results
  for i = 1, results do all[i] = ys[i] end
  if order == 0 then return all, at, results end
  local sum = weighted(ys, results, v)
  local gs = sum and nyx.grad(sum, leaves, { create_graph = order > 1 }) or {}
  for i = 1, #leaves do
    at = at + 1
    all[at] = gs[i]
  end
  if order == 1 then return all, at, results end
  sum = weighted(gs, #leaves, w)
  local others = {}
  for i = 1, #leaves do others[i] = leaves[i] end
  for i = 1, count_v do others[#others + 1] = v[i] end -- some results have none
  local hs = sum and nyx.grad(sum, others) or {}
  for i = 1, #others do
    at = at + 1
    all[at] = hs[i]
  end
  return all, at, results
end

-- The derivatives of f at inputs[1..n] along tangents of the leaves, in forward mode: those of
-- the float results (nil for others) and their number.
function environment.forward(f, inputs, n, leaves, tangents)
  local numbers = {}
  for i, leaf in ipairs(leaves) do
    for k = 1, n do
      if rawequal(inputs[k], leaf) then numbers[i] = k end
    end
  end
  local _, derivatives = nyx.func.jvp(function(...)
    local args = { unpack(inputs, 1, n) }
    for i, dual in ipairs { ... } do args[numbers[i]] = dual end
    return { f(unpack(args, 1, n)) }
  end, leaves, tangents)
  local count = #derivatives
  for i = 1, count do
    if not is_float(derivatives[i]) then derivatives[i] = nil end
  end
  return derivatives, count
end

-- A value as JSON, for describing ops.
local function json(value)
  if type(value) == "table" then
    local parts = {}
    if #value > 0 or next(value) == nil then
      for i, item in ipairs(value) do parts[i] = json(item) end
      return "[" .. table.concat(parts, ",") .. "]"
    end
    for key, item in pairs(value) do
      parts[#parts + 1] = json(tostring(key)) .. ":" .. json(item)
    end
    return "{" .. table.concat(parts, ",") .. "}"
  elseif type(value) == "number" then
    if value ~= value or value == math.huge or value == -math.huge then
      return json(tostring(value))
    end
    return ("%.17g"):format(value)
  elseif type(value) == "string" then
    return '"' .. value:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
  end
  return tostring(value == nil and "null" or value)
end

-- Every op, as JSON.
function environment.describe()
  local list = {}
  for op in nyx.ops() do list[#list + 1] = op end
  return json(list)
end

local chunks = {}

local function compile(text)
  if chunks[text] then return chunks[text] end
  local chunk, message = (loadstring or load)("local T = ... " .. text, "=request") -- luacheck: ignore
  if not chunk then error(message, 0) end
  if setfenv then -- luacheck: ignore
    setfenv(chunk, environment) -- luacheck: ignore
  else
    chunk = load("local T = ... " .. text, "=request", "t", environment)
  end
  chunks[text] = chunk
  return chunk
end

local function pack(...) return { ... }, select("#", ...) end

while true do
  local line = input:read("*l")
  if not line then break end
  local count, size = line:match "(%d+) (%d+)"
  local ok, values, n = pcall(function()
    local tensors = {}
    for i = 1, tonumber(count) do tensors[i] = read_tensor() end
    return tensors
  end)
  local text = input:read(tonumber(size)) or ""
  if ok then
    local tensors = values
    ok, values, n = pcall(function() return pack(compile(text)(tensors)) end)
  end
  if ok then
    -- A list and its length come instead of many values.
    if n >= 2 and type(values[1]) == "table" and not nyx.is_tensor(values[1]) then
      local results = values[3]
      values, n = values[1], values[2]
      if results then
        n = n + 1
        values[n] = results
      end
    end
    output:write("ok ", n, "\n")
    for i = 1, n do write_value(values[i]) end
  else
    local message = tostring(values)
    output:write("error ", #message, "\n", message)
  end
  output:flush()
end
