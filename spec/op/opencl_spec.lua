-- The OpenCL device against the CPU: every row and its gradients, in every layout, and clear
-- errors for what is not there. Pending where there is no OpenCL. No op is named.
-- Each kernel costs its compilation, so rows run in one dtype of each kind; the tag `slow` has
-- the rest. Read next: opencl_reduce_spec.lua, case.lua, core/device/opencl/source.c.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"
local there = require "there"
local unpack = table.unpack or unpack -- luacheck: ignore
local compare, each, tolerance = there.compare, there.each, there.tolerance
local seed = there.seed

-- This row alone runs in every dtype: loads and stores are the same for all.
local first = each("elementwise")[1].name

local function moved(inputs)
  local out = {}
  for i, t in ipairs(inputs) do out[i] = t:to "opencl" end
  return out
end

local function check(name, body)
  it(name, function()
    if there.absent then return pending(there.absent) end
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
          local device = moved(inputs)
          if layout == 3 then
            for i = 1, n do
              inputs[i] = inputs[i]:transpose(1, 2)
              device[i] = device[i]:transpose(1, 2)
            end
          end
          compare(nyx[op.name](unpack(device)), nyx[op.name](unpack(inputs)),
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
        local device = moved(inputs)
        local function gradients(list)
          for i, t in ipairs(list) do
            list[i] = t:detach()
            list[i].requires_grad = true
          end
          return nyx.grad(nyx[op.name](unpack(list)):sum(), list)
        end
        local cpu, got = gradients(inputs), gradients(device)
        for i = 1, #inputs do
          assert.equal(cpu[i] == nil, got[i] == nil)
          if cpu[i] then compare(got[i], cpu[i], 5e-5, op.name .. " gradient") end
        end
      end)
    end
  end

  check("every layout finds its elements", function()
    local wide = nyx.arange(1, 721, { dtype = "float32" }):reshape(2, 3, 4, 5, 6)
    local apart = nyx.arange(1, 721, { dtype = "float32" }):reshape(3, 6, 40) * 0.5
    local one = nyx.tensor(3.5)
    local layouts = { -- operands that lie differently, and merge to one dimension, two, three
      { wide, wide + 1 }, { wide, one }, { wide, wide[{ {}, {}, {}, {}, { 1, 1 } }] },
      { wide, wide[1][1] }, { wide, wide[{ {}, { 2, 2 } }] }, { wide[2], wide[1] },
      { wide:permute { 5, 4, 3, 2, 1 }, wide:permute { 5, 4, 3, 2, 1 } },
      { wide:permute { 2, 1, 4, 3, 5 }, wide:permute { 2, 1, 4, 3, 5 }:contiguous() },
      { wide:transpose(4, 5), wide:transpose(4, 5)[1][1][1] },
      { apart:narrow(3, 2, 10, 3), apart:narrow(3, 1, 10) },
      { apart:transpose(1, 3), apart:transpose(1, 3):contiguous() },
      { apart:narrow(1, 1, 1), apart }, { one, one }, { wide[1][1][1][1], one },
      { wide:narrow(1, 1, 0), wide:narrow(1, 1, 0) },
    }
    for i, pair in ipairs(layouts) do
      local device = moved(pair)
      if i == 7 then -- a transfer lies in order
        for k = 1, 2 do device[k] = wide:to("opencl"):permute { 5, 4, 3, 2, 1 } end
      elseif i == 10 then
        local d = apart:to "opencl"
        device = { d:narrow(3, 2, 10, 3), d:narrow(3, 1, 10) }
      end
      compare(device[1] - device[2] * 2, pair[1] - pair[2] * 2, 0, "layout " .. i)
      local into, cpu = device[1]:clone(), pair[1]:clone()
      if cpu:dim() > 1 then
        local view, same = into:transpose(1, 2), cpu:transpose(1, 2)
        view:add_(view * 3)
        same:add_(same * 3)
        compare(into, cpu, 0, "in place " .. i)
      end
    end
  end)

  check("elements beyond the reach of 32 bits are found #slow", function()
    local n = 2 ^ 30 + 300
    local x = nyx.ones(1, { dtype = "uint8" }):to("opencl"):expand(n) * 3
    x[{ { n - 3, n } }] = nyx.tensor({ 1, 2, 3, 4 }, { dtype = "uint8" }):to "opencl"
    assert.same({ 4, 3, 5, 7 },
      (x:narrow(1, n - 3, 4) + x:narrow(1, n - 4, 4)):to("cpu"):totable())
    assert.equal(3 * (n - 4) + 10, x:sum():item())
  end)

  check("ops without a kernel there name themselves and the remedy", function()
    local count = 0
    for _, op in ipairs(each "structural") do
      for _, call in ipairs(case.calls(op)) do
        if #call.inputs > 0 and not op.variadic then
          local args = case.arguments(op, call, "float32")
          local device = {}
          for i = 1, args.n do if args[i] then device[args[i]] = args[i]:to "opencl" end end
          local ok, message = pcall(case.apply, op, call, args, device)
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
    local device = x:to "opencl"
    compare(device[2], x[2], 0, "select")
    compare(device:t():contiguous(), x:t():contiguous(), 0, "transpose")
    device[{ 2, { 1, 2 } }] = 0
    x[{ 2, { 1, 2 } }] = 0
    compare(device, x, 0, "assignment")
    assert(tostring(device):find("opencl", 1, true))
    local w = nyx.tensor({ 1, 2, 3 }, { requires_grad = true })
    local sum = (w:to "opencl" * 2):sum()
    sum:backward()
    assert.same({ 2, 2, 2 }, w.grad:totable())
    assert.equal("cpu", w.grad.device)
  end)

  check("buffers that are used again hold what they should", function()
    local x = nyx.arange(1, 5000, { dtype = "float32" })
    local device, held = x:to "opencl", {}
    for i = 1, 30 do
      held[i % 3 + 1] = (device[{ { 1, 100 * i } }] * 2 + i) * 3 -- of another size each time
      local sum = device + i -- of the same
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
