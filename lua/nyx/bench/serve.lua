-- Nyx's side of spec/bench/run.py, which asks on standard input and reads the answers:
--   list                 the cases, a line for each, fields separated by tabs, then "."
--   check NAME FILE      runs the case afresh and writes its results into FILE; "ok N..."
--   time NAME REPEATS    seconds that one repeat took, in a row of REPEATS after one more
--   cold NAME REPEATS    the same without the repeat before
--   drop                 forgets the case and its memory
-- Anything that fails answers "error" and why. Read next: case.lua.
local nyx = require "nyx"
require "nyx.bench"
local cases = require "nyx.bench.case"

local clock = nyx.clock
local current, step, run -- the one case that is in memory

local function drop()
  current, step, run = nil, nil, nil
  collectgarbage()
  collectgarbage()
  nyx.memory_trim()
  return "ok"
end

local function prepare(name, afresh)
  if name == current and not afresh then return end
  drop()
  local case = cases.by_name[name] or error("there is no case " .. name, 0)
  if case.missing then error("missing: " .. case.missing, 0) end
  step, run = case.make()
  local one = step
  run = run or function(n) for _ = 1, n do one() end end
  current = name
  return case
end

local function list()
  local lines = {}
  for _, case in ipairs(cases.list) do
    local limit = case.limit or {}
    local fields = { case.name, case.group, limit[1] or "", ("%.0f"):format(limit[2] or 0),
      tostring(case.tol or 1e-5), case.checks or 1, case.peer or "", case.note or "",
      case.missing or "" }
    lines[#lines + 1] = table.concat(fields, "\t")
  end
  lines[#lines + 1] = "."
  return table.concat(lines, "\n")
end

local function check(name, path)
  local case = prepare(name, true)
  local file, sizes = assert(io.open(path, "wb")), { "ok" }
  for _ = 1, case.checks or 1 do
    for _, result in ipairs { step() } do
      local bytes = cases.bytes(result)
      sizes[#sizes + 1] = #bytes / 8
      file:write(bytes)
    end
  end
  file:close()
  if case.checks then current = nil end -- it is not as it began
  return table.concat(sizes, " ", 1, #sizes)
end

local function time(name, repeats, warm)
  prepare(name)
  if warm then run(1) end
  local start = clock()
  run(repeats)
  return ("%.9g"):format((clock() - start) / repeats)
end

local function answer(line)
  local verb, name, rest = line:match "^(%S+) ?(%S*) ?(.*)$"
  if verb == "list" then return list() end
  if verb == "check" then return check(name, rest) end
  if verb == "time" or verb == "cold" then return time(name, tonumber(rest), verb == "time") end
  if verb == "drop" then return drop() end
  error("unknown request " .. line, 0)
end

io.stdout:setvbuf "line"
print(("nyx %s, %s kernels, %s, %d threads"):format(nyx.version, nyx.cpu_path(), nyx.blas(),
  nyx.get_num_threads()))
for line in io.lines() do
  local ok, result = pcall(answer, line)
  if ok then
    print(result)
  else
    drop()
    print("error " .. tostring(result):gsub("\n.*", ""))
  end
end
