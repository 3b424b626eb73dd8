-- Rows and reductions through OpenCL on the first device there is: time, bandwidth, and the
-- fraction of the bandwidth of a plain copy in the same run. Prints JSON, one line a case:
--     build/release/bin/nyx spec/bench/opencl.lua [ELEMENTS]
-- A case is `times` calls in a row and one number read back, which waits for all of them;
-- the least of eleven rounds is taken, less the time of reading back alone.
local nyx = require "nyx"

local n = tonumber(arg[1] or "") or 2 ^ 26
local x = nyx.rand(n):to "opencl"
local y = nyx.rand(n):to "opencl"
local small = nyx.ones(1):to "opencl"
local square = nyx.rand(math.floor(n ^ 0.5), math.floor(n ^ 0.5)):to "opencl"
local columns = nyx.rand(math.floor(n / 16), 16):to "opencl"

local cases = { -- name, arrays that are read or written, what runs
  { "copy", 2, function() return x:clone() end },
  { "add", 3, function() return x + y end },
  { "relu", 2, function() return x:relu() end },
  { "exp", 2, function() return x:exp() end },
  { "gelu", 2, function() return x:gelu() end },
  { "add_transposed", 3, function() return square + square:t() end },
  { "sum", 1, function() return x:sum() end },
  { "amax_rows", 1, function() return square:amax(2) end },
  { "amax_columns", 1, function() return square:amax(1) end },
  { "argmax", 1, function() return x:argmax() end },
  { "argmax_rows", 1, function() return square:argmax(2) end },
  { "sum_few_columns", 1, function() return columns:sum(1) end },
  { "sum_short_rows", 1, function() return columns:sum(2) end },
  { "var_rows", 2, function() return square:var(2) end }, -- read twice, as the next
  { "logsumexp_columns", 2, function() return square:logsumexp(1) end },
}

local function seconds(times, run)
  local least = math.huge
  for _ = 1, 11 do
    local begin = nyx.clock()
    for _ = 1, times do run() end
    small:sum():item() -- one queue: it comes after all
    least = math.min(least, nyx.clock() - begin)
    collectgarbage()
  end
  return least
end

io.write(('{"device": "%s", "elements": %d}\n'):format(tostring(small.device), n))
local wait, copy = seconds(1, function() end), nil
for _, case in ipairs(cases) do
  local name, arrays, run = table.unpack(case)
  local times = 10
  run()
  local s = (seconds(times, run) - wait) / times
  local rate = 4 * n * arrays / s
  copy = copy or rate
  io.write(('{"case": "%s", "seconds": %.3e, "gigabytes_a_second": %.1f, "of_copy": %.2f}\n')
    :format(name, s, rate / 1e9, rate / copy))
end
