-- Comparing the OpenCL device with the CPU: what its specs share. Pending where there is no
-- OpenCL. Read next: opencl_spec.lua, opencl_reduce_spec.lua.
local nyx = require "nyx"
local assert = require "luassert"

local M = {}

M.seed = tonumber(os.getenv "NYX_SPEC_SEED" or "") or 2024
local available, why = pcall(function() return nyx.zeros(1):to "opencl" end)
M.absent = not available and tostring(why) or nil -- why there is no device

-- OpenCL's own functions may be a few units in the last place off (OpenCL 1.2, 7.4).
M.tolerance = { float32 = 2e-5, float64 = 1e-13, float16 = 4e-3, bfloat16 = 3e-2 }

local function close(a, b, tol)
  if a == b or (a ~= a and b ~= b) then return true end
  if type(a) == "boolean" or type(b) == "boolean" then return false end
  return math.abs(a - b) <= tol * math.max(1, math.abs(b))
end

function M.compare(device, cpu, tol, what)
  assert.equal("opencl", device.device, what .. ": device")
  assert.equal(cpu.dtype, device.dtype, what .. ": dtype")
  assert.same(cpu.shape, device.shape, what .. ": shape")
  local got, expected = device:to("cpu"):reshape(-1):totable(), cpu:reshape(-1):totable()
  assert.equal(#expected, #got, what)
  for i = 1, #got do
    if not close(got[i], expected[i], tol) then
      error(("%s: element %d is %s, on the CPU %s"):format(what, i, tostring(got[i]),
        tostring(expected[i])), 2)
    end
  end
end

-- Ops of a kind, or those that `accept` says yes to.
function M.each(accept)
  local list = {}
  for op in nyx.ops() do
    if op.kind == accept or type(accept) == "function" and accept(op) then
      list[#list + 1] = op
    end
  end
  return list
end

function M.attribute(op, name)
  for _, attr in ipairs(op.attrs) do
    if attr.name == name then return attr end
  end
end

return M
