-- Runs the nyx executable that runs the specs, or the one in NYX, as its users do.
local M = {}

local function interpreter()
  local lowest = 0
  while arg[lowest - 1] do lowest = lowest - 1 end
  return arg[lowest]
end

M.nyx = os.getenv("NYX") or interpreter()
local folder = M.nyx:match("^(.*)/bin/[^/]*$")
M.pty = folder and folder .. "/spec/pty"
M.late_signal = folder and folder .. "/spec/late_signal.so"

function M.exists(path)
  local file = path and io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

function M.write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

-- Runs a shell command line in which $NYX is the program; gives its output, its messages
-- and its exit code. `input` is what it reads, nothing by default.
function M.run(command, input)
  local names = { os.tmpname(), os.tmpname(), os.tmpname() }
  M.write(names[1], input or "")
  local script = ("NYX='%s'; { %s; } <%s >%s 2>%s; echo $?"):format(M.nyx, command, names[1],
    names[2], names[3])
  local pipe = assert(io.popen(script))
  local code = tonumber(pipe:read("*a"))
  pipe:close()
  local out, err = read(names[2]), read(names[3])
  for _, name in ipairs(names) do os.remove(name) end
  return out, err, code
end

-- Talks to the program on a terminal: see pty.c for the dialogue. Besides there are "prompt",
-- which waits for one, and "cancel", which presses Ctrl-C and waits for the prompt after it.
-- `environment` is for the env command.
function M.talk(dialogue, environment, options)
  dialogue = ("\n" .. dialogue):gsub("\ncancel%f[\n]", "\nsend \\x03\nexpect ^C\\r\\n> ")
    :gsub("\nprompt%f[\n]", "\nexpect > ")
  local command = ("env %s '%s' 20 $NYX %s"):format(
    environment or "TERM=xterm NYX_HISTORY=/dev/null", M.pty, options or "")
  local out, err, code = M.run(command, dialogue)
  return out .. err, code
end

return M
