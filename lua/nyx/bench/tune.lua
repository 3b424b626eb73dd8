-- nyx --tune [case ...]: meets the sizes of benchmark cases once, measuring (nyx.tune), so
-- that programs find them measured. Read next: init.lua, core/base/tune.c.
local nyx = require "nyx"
local bench = require "nyx.bench"
local progress = require "nyx.train.progress"

local M = {}

local common = { "product", "conv", "reduce" } -- groups that are tuned when none is named

local function line(row)
  print(("%-11s %8.4g us, %3.0f %% of %s's  %s"):format(row.choice, row.seconds * 1e6,
    100 * row.seconds / row.rule_seconds, row.rule, row.way))
  print("            " .. row.size)
end

-- What was measured, the greatest gain first.
local function report(info)
  local gained, new = {}, 0
  for _, row in ipairs(info.sizes) do
    if row.measured then
      new = new + 1
      if row.way ~= row.rule then gained[#gained + 1] = row end
    end
  end
  table.sort(gained, function(a, b)
    return a.seconds * b.rule_seconds < b.seconds * a.rule_seconds
  end)
  for _, row in ipairs(gained) do line(row) end
  print(("%d sizes measured, another way than the fixed rule's for %d; %d known in all")
    :format(new, #gained, info.known))
  print("kept in " .. (info.file or "no file: neither XDG_CACHE_HOME nor HOME is set"))
end

--- What `nyx --tune` does with its arguments: names, beginnings or groups of cases.
---@param selection string[]
---@return boolean whether all went well
function M.main(selection)
  for _, word in ipairs(selection) do
    if word:find "^%-" then
      io.stderr:write("unknown option ", word, "; names of cases only, see nyx --bench --list\n")
      return false
    end
  end
  local cases = bench.selected(#selection > 0 and selection or common)
  if #cases == 0 then return false end
  local ok, problem = nyx.tune(true)
  if not ok then
    io.stderr:write(problem, "\n")
    return false
  end
  local bar = progress(#cases, { label = "tuning" })
  for i in bar do
    bar:set("case", cases[i].name)
    nyx.tune "use" -- making the inputs is nothing to tune
    local step = cases[i].make and cases[i].make()
    nyx.tune(true)
    if step then step() end
    collectgarbage()
    collectgarbage()
  end
  local info = nyx.tune()
  report(info)
  return info.problem == nil
end

return M
