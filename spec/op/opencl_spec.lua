-- The OpenCL device against the CPU: every row, every reduction over all dimensions, their
-- gradients, and clear errors for the rest. Pending where there is no OpenCL. No op is named.
-- Each kernel costs its compilation, so rows run in one dtype of each kind; the tag `slow` has
-- the rest. Read next: case.lua, core/device/opencl/source.c.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"
local unpack = table.unpack or unpack -- luacheck: ignore

local seed = tonumber(os.getenv "NYX_SPEC_SEED" or "") or 2024
local available, why = pcall(function() return nyx.zeros(1):to "opencl" end)

-- OpenCL's own functions may be a few units in the last place off (OpenCL 1.2, 7.4).
local tolerance = { float32 = 2e-5, float64 = 1e-13, float16 = 4e-3, bfloat16 = 3e-2 }

local function close(a, b, tol)
  if a == b or (a ~= a and b ~= b) then return true end
  if type(a) == "boolean" or type(b) == "boolean" then return false end
  return math.abs(a - b) <= tol * math.max(1, math.abs(b))
end

local function compare(device, cpu, tol, what)
  assert.equal("opencl", device.device, what .. ": device")
  assert.equal(cpu.dtype, device.dtype, what .. ": dtype")
  local got, expected = device:to("cpu"):reshape(-1):totable(), cpu:reshape(-1):totable()
  assert.equal(#expected, #got, what)
  for i = 1, #got do
    if not close(got[i], expected[i], tol) then
      error(("%s: element %d is %s, on the CPU %s"):format(what, i, got[i], expected[i]), 2)
    end
  end
end

local function each(kind)
  local list = {}
  for op in nyx.ops() do
    if op.kind == kind then list[#list + 1] = op end
  end
  return list
end

-- This row alone runs in every dtype: loads and stores are the same for all.
local first = each("elementwise")[1].name

local function moved(inputs)
  local out = {}
  for i, t in ipairs(inputs) do out[i] = t:to "opencl" end
  return out
end

local function check(name, body)
  it(name, function()
    if not available then return pending(tostring(why)) end
    body()
  end)
end

describe("OpenCL", function()
  for _, op in ipairs(each "elementwise") do
    for _, dtype in ipairs(op.dtypes) do
      local tag = (dtype == "float32" or dtype == "int32" or op.name == first) and ""
        or " #slow"
      check(op.name .. " on " .. dtype .. " equals the CPU" .. tag, function()
        case.seed(seed)
        local lo, hi = op.domain[1], op.domain[2]
        local n = #op.inputs
        for layout = 1, 3 do
          local inputs = {}
          for i = 1, n do
            local shape = layout == 2 and (i == 1 and { 4, 1, 6 } or { 5, 6 }) or { 5, 6 }
            inputs[i] = case.tensor(shape, dtype, lo, hi)
          end
          local there = moved(inputs)
          if layout == 3 then
            for i = 1, n do
              inputs[i] = inputs[i]:transpose(1, 2)
              there[i] = there[i]:transpose(1, 2)
            end
          end
          compare(nyx[op.name](unpack(there)), nyx[op.name](unpack(inputs)),
            tolerance[dtype] or tolerance.float32, op.name)
        end
      end)
    end
    if op.differentiable then
      check(op.name .. " has the CPU's gradients", function()
        case.seed(seed)
        local inputs = {}
        for i = 1, #op.inputs do
          local shape = i == 1 and { 4, 5 } or { 5 }
          inputs[i] = case.tensor(shape, "float32", op.domain[1], op.domain[2])
        end
        local there = moved(inputs)
        local function gradients(list)
          for i, t in ipairs(list) do
            list[i] = t:detach()
            list[i].requires_grad = true
          end
          return nyx.grad(nyx[op.name](unpack(list)):sum(), list)
        end
        local cpu, device = gradients(inputs), gradients(there)
        for i = 1, #inputs do
          assert.equal(cpu[i] == nil, device[i] == nil)
          if cpu[i] then compare(device[i], cpu[i], 5e-5, op.name .. " gradient") end
        end
      end)
    end
  end

  for _, op in ipairs(each "reduction") do
    for _, dtype in ipairs(op.dtypes) do
      local tag = (dtype == "float32" or dtype == "int32") and "" or " #slow"
      check(op.name .. " of " .. dtype .. " equals the CPU, or says unsupported" .. tag,
        function()
          case.seed(seed)
          for _, shape in ipairs { { 6 }, { 40, 50 }, {} } do
            for dim = 0, #shape do
              local x = case.tensor(shape, dtype, -1.5, 1.5)
              local options = dim > 0 and { dim = dim } or nil
              local ok, y = pcall(nyx[op.name], x:to "opencl", options)
              if ok then
                local cpu = nyx[op.name](x, options)
                compare(y, cpu, (tolerance[dtype] or 0) * 4, op.name)
              else
                y = tostring(y)
                assert(y:find(op.name, 1, true) and y:find("no kernel", 1, true), y)
              end
            end
          end
        end)
    end
  end

  check("ops without a kernel there name themselves and the remedy", function()
    local count = 0
    for _, op in ipairs(each "structural") do
      for _, call in ipairs(case.calls(op)) do
        if #call.inputs > 0 and not op.variadic then
          local args = case.arguments(op, call, "float32")
          local there = {}
          for i = 1, args.n do if args[i] then there[args[i]] = args[i]:to "opencl" end end
          local ok, message = pcall(case.apply, op, call, args, there)
          assert.is_false(ok, op.name)
          assert(message:find(op.name, 1, true) and message:find('to("cpu")', 1, true), message)
          count = count + 1
        end
      end
    end
    assert(count > 10)
  end)

  check("views, assignment, printing and backward across devices work", function()
    local x = nyx.arange(1, 13, { dtype = "float32" }):reshape(3, 4)
    local there = x:to "opencl"
    compare(there[2], x[2], 0, "select")
    compare(there:t():contiguous(), x:t():contiguous(), 0, "transpose")
    there[{ 2, { 1, 2 } }] = 0
    x[{ 2, { 1, 2 } }] = 0
    compare(there, x, 0, "assignment")
    assert(tostring(there):find("opencl", 1, true))
    local w = nyx.tensor({ 1, 2, 3 }, { requires_grad = true })
    local sum = (w:to "opencl" * 2):sum()
    sum:backward()
    assert.same({ 2, 2, 2 }, w.grad:totable())
    assert.equal("cpu", w.grad.device)
  end)

  check("buffers that are used again hold what they should", function()
    local x = nyx.arange(1, 5000, { dtype = "float32" })
    local there, held = x:to "opencl", {}
    for i = 1, 30 do
      held[i % 3 + 1] = (there[{ { 1, 100 * i } }] * 2 + i) * 3 -- of another size each time
      local sum = there + i -- of the same
      collectgarbage()
      collectgarbage()
      if i == 15 then nyx.memory_trim() end
      for k = i, math.max(1, i - 2), -1 do
        compare(held[k % 3 + 1], (x[{ { 1, 100 * k } }] * 2 + k) * 3, 0, "held " .. k)
      end
      compare(sum, x + i, 0, "sum " .. i)
    end
  end)

  check("a process may end while work is under way", function()
    for n = 100, 103 do -- new sizes: the driver compiles each in a thread of its own
      local script = ([[local nyx = require 'nyx'
        local x = nyx.ones(%d):to 'opencl' for i = 1, 9 do x = (x + i):atan2(x):cosh() end]]
        ):format(n):gsub("%s+", " ")
      local ok = os.execute(('exec "$(readlink /proc/$PPID/exe)" -e "%s"'):format(script))
      assert(ok == true or ok == 0)
    end
  end)

  check("mixed devices are refused", function()
    local ok, message = pcall(function() return nyx.ones(2):to "opencl" + nyx.ones(2) end)
    assert.is_false(ok)
    assert(message:find("opencl", 1, true) and message:find("cpu", 1, true), message)
  end)
end)
