-- nyx.profile_backward: which ops a backward pass spends its time and memory on.
-- Read next: bindings/lua/anomaly.c.
local nyx = require "nyx.core"

local unpack = unpack or table.unpack
local system = nyx.system

local M = {}

--- A list of rows, the slowest first; tostring makes a table for reading.
---@class nyx.BackwardReport
---@field seconds number of all rows
---@field bytes integer of all rows
---@field [integer] {name: string, calls: integer, seconds: number, bytes: integer}
local Report = {}
Report.__index = Report

local function size_text(bytes)
  local units = { "B", "KiB", "MiB", "GiB", "TiB" }
  local unit = 1
  while bytes >= 1024 and unit < #units do bytes, unit = bytes / 1024, unit + 1 end
  return (unit == 1 and "%d %s" or "%.1f %s"):format(bytes, units[unit])
end

function Report:__tostring()
  local lines = { ("%-24s %8s %12s %7s %12s"):format("backward of", "calls", "ms", "share",
    "allocated") }
  local function line(name, calls, seconds, bytes)
    local share = self.seconds > 0 and 100 * seconds / self.seconds or 0
    lines[#lines + 1] = ("%-24s %8d %12.3f %6.1f%% %12s"):format(name, calls, 1000 * seconds,
      share, size_text(bytes))
  end
  local calls = 0
  for _, row in ipairs(self) do
    line(row.name, row.calls, row.seconds, row.bytes)
    calls = calls + row.calls
  end
  line("all", calls, self.seconds, self.bytes)
  return table.concat(lines, "\n")
end

--- Calls fn(...) and reports what the backward passes in it took, op by op: how often the
--- gradient of each was computed, the time, and the bytes that the allocator handed out
--- meanwhile. "accumulate" is adding to the leaves' gradients. On devices other than the CPU
--- the time is that of starting the work.
---@param fn function
---@param ... any
---@return nyx.BackwardReport report
---@return any ... what fn gives
function M.profile_backward(fn, ...)
  local profiler = system.profiler()
  local results = { n = 0 }
  local function keep(...)
    results = { n = select("#", ...), ... }
  end
  keep(system.profile(profiler, fn, ...))
  local report = setmetatable(system.profile_rows(profiler), Report)
  table.sort(report, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.name < b.name
  end)
  report.seconds, report.bytes = 0, 0
  for _, row in ipairs(report) do
    report.seconds, report.bytes = report.seconds + row.seconds, report.bytes + row.bytes
  end
  return report, unpack(results, 1, results.n)
end

return M
