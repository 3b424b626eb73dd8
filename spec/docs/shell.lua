-- Commands for the specs of the documentation, on Lua 5.4 and LuaJIT. Read next:
-- docs_spec.lua.
local M = {}

--- Exit code and output (both streams) of a shell command.
function M.run(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1; echo \"exit $?\""))
  local output = pipe:read("*a")
  pipe:close()
  local text, code = output:match("^(.*)exit (%d+)\n$")
  return tonumber(code), text
end

local function absolute(path)
  if path:sub(1, 1) == "/" then return path end
  local _, folder = M.run("pwd")
  return folder:gsub("\n", "") .. "/" .. path
end

--- The program that runs the specs: the lowest index of arg.
function M.interpreter()
  local lowest = 0
  while arg[lowest - 1] do lowest = lowest - 1 end
  local program = arg[lowest]
  return program:find("/", 1, true) and absolute(program) or program
end

--- The top of the source tree, given the source of a file in spec/docs.
function M.root(source)
  return absolute((source:match("^@(.*)spec/docs/") or "") .. "./"):gsub("/%./$", "/")
end

function M.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- A new empty folder.
function M.folder()
  local name = os.tmpname()
  os.remove(name)
  assert(M.run("mkdir '" .. name .. "'") == 0)
  return name
end

return M
