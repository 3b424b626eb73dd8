-- nyx.bench: the cases that Nyx is measured by, and `nyx --bench [option|case ...]`. That is
-- spec/bench/run.py where there is a Python, with limits of the machine and the peers; where
-- there is none, the times alone. Read next: case.lua, cases/, docs/benchmarks/README.md.
local nyx = require "nyx"
local cases = require "nyx.bench.case"

local M = {}

for _, group in ipairs { "elementwise", "reduce", "norm", "product", "conv", "attention", "sort",
  "factor", "fourier", "optim", "overhead", "models" } do
  cases.group = group
  require("nyx.bench.cases." .. group)
end

-- ---------------------------------------------------------------- with Python

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- run.py in the source tree this file belongs to, or where it was installed.
local function find_driver()
  local lua = debug.getinfo(1, "S").source:match "^@(.*)/nyx/bench/init%.lua$"
  if not lua then return nil end
  for _, path in ipairs { "/../spec/bench/run.py", "/../../nyx/bench/run.py" } do
    if exists(lua .. path) then return lua .. path end
  end
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function succeeds(command)
  local ok = os.execute(command)
  return ok == true or ok == 0
end

-- ---------------------------------------------------------------- without

local rounds, seconds_of_a_round = 9, 0.06

-- Seconds of one repeat: the median of some rounds.
local function time(case)
  local step, run = case.make()
  run = run or function(n) for _ = 1, n do step() end end
  local function timed(n)
    local start = nyx.clock()
    run(n)
    return (nyx.clock() - start) / n
  end
  local n, times = 1, {}
  timed(1)
  while timed(n) * n < seconds_of_a_round / 2 do n = n * 2 end
  for i = 1, rounds do times[i] = timed(n) end
  table.sort(times)
  return times[math.floor((rounds + 1) / 2)]
end

local function shown(seconds)
  for _, unit in ipairs { { "s", 1 }, { "ms", 1e3 }, { "us", 1e6 } } do
    if seconds * unit[2] >= 1 then return ("%.3g %s"):format(seconds * unit[2], unit[1]) end
  end
  return ("%.3g ns"):format(seconds * 1e9)
end

local function is_wanted(case, selection)
  if #selection == 0 then return true end
  for _, word in ipairs(selection) do
    if case.name == word or case.group == word or case.name:sub(1, #word + 1) == word .. "_" then
      return true
    end
  end
  return false
end

--- The cases of given names, beginnings of names or groups; all of them for {}. Says so where
--- there is none.
---@param selection string[]
---@return table[]
function M.selected(selection)
  local list = {}
  for _, case in ipairs(cases.list) do
    if is_wanted(case, selection) then list[#list + 1] = case end
  end
  if #list == 0 then
    io.stderr:write("no case is called ", table.concat(selection, " or "), "\n")
  end
  return list
end

--- Times cases and prints them.
---@param selection string[]
---@return boolean whether there were any
function M.times(selection)
  local list = M.selected(selection)
  for _, case in ipairs(list) do
    local result = case.missing and "missing: " .. case.missing or shown(time(case))
    print(("%-32s %10s"):format(case.name, result))
    collectgarbage()
    collectgarbage()
    nyx.memory_trim()
  end
  return #list > 0
end

--- What `nyx --bench` does with its arguments.
---@param program string the nyx executable
---@param arguments string[]
---@return boolean whether all went well
function M.main(program, arguments)
  local driver = find_driver()
  if driver and succeeds "python3 -c 'import sys' >/dev/null 2>&1" then
    local command = { "python3", quoted(driver), "--nyx", quoted(program) }
    for _, argument in ipairs(arguments) do command[#command + 1] = quoted(argument) end
    return succeeds(table.concat(command, " "))
  end
  print("times alone, no limits and no peers: "
    .. (driver and "there is no python3" or "spec/bench/run.py is not installed"))
  for _, argument in ipairs(arguments) do
    if argument:find "^%-" then
      io.stderr:write("unknown option ", argument, "; cases only\n")
      return false
    end
  end
  return M.times(arguments)
end

return M
