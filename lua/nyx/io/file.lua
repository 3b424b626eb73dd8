-- Whole files: reading, with gzip undone, and writing so that a reader never sees half a
-- file. What the system refuses comes back as nil and a message.
local check = require "nyx.check"
local system = require("nyx.core").system

local M = {}

--- The most bytes that a compressed file may grow to.
M.inflate_limit = 2 ^ 33

--- An open file to read; a directory opens too, but nothing can be read from it.
---@param path string
---@return file*? file
---@return string? message
function M.open(path)
  if system.file_kind(path) == "a directory" then
    return nil, ("%s: it is a directory, expected a file"):format(path)
  end
  return io.open(path, "rb")
end

--- All bytes of a file; compressed ones (gzip) are decompressed.
---@param path string
---@return string? bytes
---@return string? message
function M.read(path)
  local file, message = M.open(path)
  if not file then return nil, message end
  local bytes
  bytes, message = file:read("*a")
  file:close()
  if not bytes then return nil, ("%s: %s"):format(path, message or "cannot be read") end
  if bytes:sub(1, 2) == "\31\139" then
    bytes, message = system.gunzip(bytes, M.inflate_limit)
    if not bytes then return nil, ("%s: %s"):format(path, message) end
  end
  return bytes
end

--- Writes a file through write(file, path of it), which returns true, or nil and a message.
--- The new file takes the place of the old one, with its mode, only when all of it is on
--- the disk. Where the path is a link, the file that it leads to is replaced; what is no
--- regular file (a device, a pipe) is refused.
---@param path string
---@param write fun(file: file*, path: string): boolean?, string?
---@return boolean? ok
---@return string? message
function M.replace(path, write)
  check.type("nyx.save", "path", path, "string")
  local target, mode = system.save_target(path)
  if not target then return nil, ("%s: %s"):format(path, mode) end
  local unique = tostring({}):match("0x(%x+)") or "0"
  local temporary = ("%s.%s%d.part"):format(target, unique, os.time() % 100000)
  local file, message = io.open(temporary, "wb")
  if not file then return nil, ("%s: %s"):format(path, message:match(".*: (.*)") or message) end
  -- Whatever write does, an error included, no half-written file stays behind.
  local called, ok, why = true, true, nil
  if mode then ok, why = system.set_mode(temporary, mode) end
  if ok then called, ok, why = pcall(write, file, temporary) end
  if called and ok then ok, why = system.sync_file(file) end
  local closed, close_why = file:close()
  if called and ok and closed then ok, why = os.rename(temporary, target) end
  if called and ok and closed then return true end
  os.remove(temporary)
  if not called then error(ok, 0) end
  return nil, ("%s: %s"):format(path, why or close_why or "cannot be written")
end

return M
