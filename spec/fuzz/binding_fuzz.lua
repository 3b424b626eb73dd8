-- Calls every function of nyx.*, every method of tensors, every layer, loss, optimiser and
-- dataset with random arguments: sensible, slightly wrong and absurd ones. Whatever comes,
-- a call either works or raises a string that names the function and the line of the caller,
-- leaves its arguments as they were, and keeps no memory.
--
--   nyx spec/fuzz/binding_fuzz.lua [seconds [seed [cases]]]
--
-- The seed printed with a failure makes it the first case. With NYX_FUZZ_TRACE=1 every call is
-- told before it is made, with NYX_FUZZ_LEAKS=1 memory is counted after every one.
-- spec/lua/fuzz_spec.lua runs some cases with every test run.
local nyx = require "nyx"

local M = {}

local unpack = unpack or table.unpack
local file = debug.getinfo(1, "S").short_src

-- ---------------------------------------------------------------- random numbers

local state = 1

local function random(n) -- 1..n
  state = state * 16807 % 2147483647
  return state % n + 1
end

local function pick(list) return list[random(#list)] end

-- ---------------------------------------------------------------- arguments

local dtypes = { "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64",
  "bool" }

local function shape()
  local sizes = {}
  for d = 1, pick { 0, 1, 1, 2, 2, 2, 3, 4, 4, 8 } do
    sizes[d] = random(20) == 1 and 0 or random(d > 4 and 2 or 5)
  end
  return sizes
end

local function tensor()
  local sizes = shape()
  local kind = random(12)
  local x
  if kind <= 6 then
    x = nyx.randn(sizes)
  elseif kind <= 8 then
    x = nyx.randint(1, 4, sizes):to("int64") -- positions and labels
  else
    x = (nyx.randn(sizes) * 3):to(pick(dtypes))
  end
  kind = random(12)
  if kind == 1 and x.ndim >= 2 then x = x:transpose(1, 2) end
  if kind == 2 and x.ndim >= 1 and x.ndim < 8 then
    x = x:unsqueeze(1):expand(random(3), unpack(x.shape))
  end
  if kind == 3 and x.ndim >= 1 and x:size(1) > 1 then x = x:slice(1, 2, -1) end
  if kind == 4 and x:is_floating_point() then x:fill_(pick { 0 / 0, 1 / 0, -1 / 0, 0 }) end
  if kind == 5 and x:is_floating_point() then x:requires_grad_() end
  if kind == 6 and x:is_floating_point() then x = x:detach():requires_grad_() * 2 end
  if kind == 7 and random(4) == 1 then x:release() end
  return x
end

local numbers = { 0, 1, 2, 3, -1, -2, 0.5, -0.5, 1e-8, 1e300, -1e300, 0 / 0, 1 / 0, -1 / 0, 2 ^ 31,
  -2 ^ 31, 2 ^ 32, 2 ^ 53, 2 ^ 62, -2 ^ 63, 2 ^ 63, 1e18, 4e9, 65, 9, 255, 256,
  math.maxinteger or 2 ^ 60, math.mininteger or -2 ^ 60 }

local words = { "", "float32", "int64", "bool", "cpu", "nowhere", "mean", "sum", "none", "same",
  "tanh", "constant", "reflect", "\0", "%s%n%d", ("x"):rep(5000), "\255\254", "dim", "weight" }

local options = { "dim", "keepdim", "dtype", "device", "requires_grad", "out", "reduction",
  "weight", "bias", "stride", "padding", "dilation", "groups", "gradient", "retain_graph",
  "create_graph", "shape", "value", "p", "eps", "lr", "momentum", "betas", "batch_size",
  "shuffle", "ceil_mode", "ignore_index", "label_smoothing", "index", "unknown" }

local argument

local function list(depth, make)
  local t = {}
  for i = 1, random(5) - 1 do t[i] = make(depth + 1) end
  return t
end

local function absurd(depth)
  local kind = random(11)
  if kind == 1 then
    local t = { 1 }
    t[1] = t
    return t
  elseif kind == 2 then
    return function() return 1 end
  elseif kind == 3 then
    return coroutine.create(function() end)
  elseif kind == 4 then
    return io.stderr
  elseif kind == 5 then
    return setmetatable({}, { __index = function() error("read") end, __len = function()
      return 1e9
    end })
  elseif kind == 6 and depth < 3 then
    local key = argument(depth + 1)
    return { [key == key and key or "x"] = 1, [2 ^ 40] = 2 }
  elseif kind == 7 then
    local t = {}
    for _ = 1, 300 do t = { t } end
    return t
  elseif kind == 8 then
    local t = {}
    for i = 1, 300 do t[i] = i end
    return t
  elseif kind == 9 then
    return nyx.nn
  elseif kind == 10 then
    return nyx.nn.Linear(2, 2)
  end
  return pick(words)
end

function argument(depth)
  local kind = random(20)
  if kind <= 6 then return tensor() end
  if kind <= 9 then return random(6) - 2 end
  if kind <= 11 then return pick(numbers) end
  if kind == 12 then return random(2) == 1 end
  if kind == 13 then return pick(words) end
  if kind == 14 then return nil end
  if depth > 2 then return random(4) end
  if kind <= 16 then return list(depth, function() return random(5) - 1 end) end
  if kind == 17 then return list(depth, tensor) end
  if kind == 18 then return list(depth, argument) end
  if kind == 19 then
    local t = random(3) == 1 and { argument(depth + 1) } or {}
    for _ = 1, random(3) do
      local value = argument(depth + 1)
      if value ~= nil then t[pick(options)] = value end
    end
    return t
  end
  return absurd(depth)
end

-- ---------------------------------------------------------------- what is called

-- Settings of the process, and what writes files or to the terminal.
local left_out = { set_home = true, set_index = true, set_num_threads = true, memory_limit = true,
  memory_fail_after = true, set_default_dtype = true, set_grad_enabled = true, save = true,
  help = true, devices = true, memory_reset_peak = true, interrupt = true, fail = true,
  find = true, register = true, progress = true, show = true, tune = true }

local function add(targets, prefix, place)
  local names = {}
  for name, value in next, place do
    local callable = type(value) == "function"
      or type(value) == "table" and rawget(value, "__index") ~= nil
    if type(name) == "string" and callable and not left_out[name] then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    targets[#targets + 1] = { name = name, label = prefix .. name, call = place[name],
      op = nyx.op(name) ~= nil }
  end
end

-- Modules are shared: what is put into one stays.
local function set(x, k, v)
  if x ~= nyx.nn then x[k] = v end
end

local operators = {
  { "index", function(x, k) return x[k] end },
  { "newindex", set },
  { "add", function(x, y) return x + y end }, { "sub", function(x, y) return x - y end },
  { "mul", function(x, y) return x * y end }, { "div", function(x, y) return x / y end },
  { "mod", function(x, y) return x % y end }, { "pow", function(x, y) return x ^ y end },
  { "unm", function(x) return -x end }, { "len", function(x) return #x end },
  { "concat", function(x, y) return x .. y end }, { "lt", function(x, y) return x < y end },
  { "eq", function(x, y) return x == y end }, { "tostring", tostring },
  { "grad", function(x, y) set(x, "grad", y) end },
  { "requires_grad", function(x, y) set(x, "requires_grad", y) end },
}

-- A layer that was made is also called; an optimiser steps.
local function layer(class)
  return function(...)
    local n = random(3) - 1
    local made = n == 0 and class(...) or class(random(4), random(4), random(3))
    return made(argument(1), random(3) == 1 and argument(1) or nil)
  end
end

local function targets_of()
  local targets = {}
  add(targets, "nyx.", nyx)
  add(targets, "x:", nyx.Tensor)
  add(targets, "nn.", nyx.nn)
  add(targets, "nn.init.", nyx.nn.init)
  if nyx.nn.utils then add(targets, "nn.utils.", nyx.nn.utils) end
  add(targets, "optim.", nyx.optim)
  add(targets, "data.", nyx.data)
  add(targets, "train.", nyx.train)
  add(targets, "show.", nyx.show)
  for name, class in next, nyx.nn.classes do
    targets[#targets + 1] = { label = "layer " .. name, call = layer(class) }
  end
  for _, entry in ipairs(operators) do
    targets[#targets + 1] = { label = "operator " .. entry[1], call = entry[2] }
  end
  table.sort(targets, function(a, b) return a.label < b.label end)
  return targets
end

-- ---------------------------------------------------------------- one case

local function bytes_of(value, into, depth)
  if nyx.is_tensor(value) then
    if tostring(value) ~= "nyx.Tensor (released)" then into[value] = value:tobytes() end
  elseif type(value) == "table" and depth < 3 and not getmetatable(value) then
    for _, inner in next, value do bytes_of(inner, into, depth + 1) end
  end
end

-- Lua's own errors, of code that does with its arguments what Lua code does.
local own_errors = { "attempt to", "stack overflow", ": read$", "not enough memory",
  "table overflow", "has the wrong number of" }

local function is_own(message)
  for _, text in ipairs(own_errors) do
    if message:find(text) then return true end
  end
  return false
end

--- Runs one case; gives nil, or what is wrong.
---@param targets table[]
---@param seed integer
---@return string?
local function run(targets, seed)
  nyx.manual_seed(seed)
  local target = pick(targets)
  M.last = target.label
  local n, arguments, before = random(6) - 1, {}, {}
  if random(2) == 1 then n = math.max(n, 1) end
  for i = 1, n do arguments[i] = i == 1 and random(10) > 2 and tensor() or argument(0) end
  for i = 1, n do bytes_of(arguments[i], before, 0) end
  if M.trace then io.stderr:write(("seed %d: %s\n"):format(seed, target.label)) end
  local start = nyx.clock()
  local ok, message = pcall(target.call, unpack(arguments, 1, n))
  local took = nyx.clock() - start
  nyx.set_grad_enabled(true)
  local function wrong(what)
    local texts = {}
    for i = 1, n do
      local x = arguments[i]
      texts[i] = tostring(x)
      if nyx.is_tensor(x) and not texts[i]:find("released") then
        texts[i] = ("%s(%s)"):format(x.dtype, table.concat(x.shape, "x"))
      end
    end
    return ("%s(%s): %s"):format(target.label, table.concat(texts, ", "), what)
  end
  if took > 20 then return wrong(("took %.1f s"):format(took)) end
  if ok then return nil end
  if type(message) ~= "string" then return wrong("the error is a " .. type(message)) end
  if target.name and not is_own(message) then
    if not message:find(file, 1, true) then
      return wrong("no position of the caller: " .. message:sub(1, 300))
    end
    -- What is made of other functions may pass on their errors.
    if not message:find(target.name:match("^(.-)_?$"), 1, true)
      and (target.op or not message:find("%d: [%w_.]+: ") and not message:find(" to '[%w_.]+'")
      and not message:find("calling '[%w_.]+'") and not message:find("x[...]: ", 1, true)) then
      return wrong("the error does not name the function: " .. message:sub(1, 300))
    end
  end
  for x, bytes in next, before do
    if tostring(x) ~= "nyx.Tensor (released)" and x:tobytes() ~= bytes then
      return wrong("an argument changed, though it failed: " .. message:sub(1, 300))
    end
  end
  return nil
end

local function live_bytes()
  nyx.memory_trim() -- plans of Fourier transforms are kept
  collectgarbage()
  collectgarbage()
  return nyx.memory().live
end

--- Runs cases until `enough(case)`; gives the failures.
---@param seed integer
---@param enough fun(case: integer): boolean
---@return string[] failures
---@return integer cases
function M.run(seed, enough)
  local targets, failures, case = targets_of(), {}, 1
  nyx.ones(1, { requires_grad = true }):register_hook(print) -- opens what is opened once
  nyx.tune(false) -- which would open a file of this machine in the midst
  local live = live_bytes()
  local limit = nyx.memory_limit(live + 256 * 1024 * 1024)
  state = seed % 2147483646 + 1
  while not enough(case) and #failures < 100 do
    local at = state - 1
    local ok, problem = pcall(run, targets, at)
    if not ok then problem = tostring(problem) end
    if M.leaks then
      local now = live_bytes()
      if now ~= live then
        problem = ("%s keeps %d bytes"):format(M.last, now - live)
        live = now
      end
    end
    failures[#failures + 1] = problem and ("seed %d: %s"):format(at, problem)
    case = case + 1
  end
  nyx.memory_limit(limit)
  local grown = live_bytes() - live
  if grown ~= 0 then
    failures[#failures + 1] = ("seed %d: %d bytes were not given back"):format(seed, grown)
  end
  return failures, case - 1
end

if arg and arg[0] and arg[0]:find("binding_fuzz%.lua$") then
  local seconds, seed = tonumber(arg[1]) or 60, tonumber(arg[2]) or os.time() % 100000
  M.trace, M.leaks = os.getenv("NYX_FUZZ_TRACE"), os.getenv("NYX_FUZZ_LEAKS")
  print(("seed %d, %d s"):format(seed, seconds))
  local stop = nyx.clock() + seconds
  local failures, cases = M.run(seed, function(case)
    return nyx.clock() > stop or case > (tonumber(arg[3]) or math.huge)
  end)
  for _, failure in ipairs(failures) do print(failure) end
  print(("%d cases, %d failures"):format(cases, #failures))
  os.exit(#failures == 0 and 0 or 1, true)
end

return M
