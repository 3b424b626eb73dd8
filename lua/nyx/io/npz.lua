-- NumPy's files of several arrays (.npz): a ZIP archive of .npy files. Only names and
-- numbers are taken from the archive; nothing is written anywhere. Read next: npy.lua,
-- bindings/lua/zip.c.
local check = require "nyx.check"
local system = require("nyx.core").system
local files = require "nyx.io.file"
local npy = require "nyx.io.npy"

local M = {}

local MAX_RATIO = 1100 -- deflate makes at most 1032 bytes of one

--- Writes tensors by name, stored as numpy.savez does.
---@param path string
---@param tensors table<string, any>
---@return boolean? ok
---@return string? message
function M.write(path, tensors)
  if type(tensors) ~= "table" or getmetatable(tensors) then
    check.fail("nyx.save: 'object' is %s, expected a table of tensors by name for a .npz file",
      check.describe(tensors))
  end
  local names, entries = {}, {}
  for name, tensor in pairs(tensors) do
    if type(name) ~= "string" or name == "" or name:find("%z") or #name > 60000 then
      check.fail("nyx.save: a key is %s, expected a name for a .npz file", check.describe(name))
    end
    if not check.is_tensor(tensor) then
      check.fail("nyx.save: '%s' is %s, expected a tensor for a .npz file", name,
        check.describe(tensor))
    end
    names[#names + 1] = name
  end
  if #names == 0 then check.fail("nyx.save: 'object' is empty, a .npz file needs a tensor") end
  table.sort(names)
  for i, name in ipairs(names) do
    local tensor = tensors[name]
    entries[i] = { name .. ".npy", npy.header(("nyx.save: '%s'"):format(name), tensor),
      npy.plain(tensor) }
  end
  return files.replace(path, function(_, temporary)
    local ok, message = system.zip_write(temporary, entries)
    if not ok then return nil, message end
    -- libzip has put a file of its own in the place of the one that is open.
    local written
    written, message = io.open(temporary, "rb")
    if not written then return nil, message end
    ok, message = system.sync_file(written)
    written:close()
    return ok, message
  end)
end

-- What is wrong with the archive as a whole, before anything is unpacked. That entries do
-- not overlap libzip sees to (ZIP_CHECKCONS).
local function problem_of(entries)
  local unpacked, seen = 0, {}
  for _, entry in ipairs(entries) do
    entry.key = entry.name:match("^(.*)%.npy$")
    if not entry.key then
      return ("has an entry '%s' that is no .npy file"):format(entry.name)
    end
    if seen[entry.key] then return ("has the name '%s' twice"):format(entry.key) end
    seen[entry.key] = true
    unpacked = unpacked + entry.size
    if entry.size > entry.packed * MAX_RATIO + 1024 then
      return ("claims that '%s' unpacks from %.0f to %.0f bytes"):format(entry.key, entry.packed,
        entry.size)
    end
    if entry.size > entry.packed and unpacked > files.inflate_limit then
      return ("unpacks to more than the limit of %.0f bytes"):format(files.inflate_limit)
    end
  end
end

local function load(archive, entries)
  local problem = problem_of(entries)
  if problem then return nil, problem end
  local tensors = {}
  for i, entry in ipairs(entries) do
    local ok, message = system.zip_entry(archive, i)
    local tensor
    if ok then
      tensor, message = npy.from {
        size = entry.size,
        read = function(_, n) return system.zip_text(archive, n) end,
        fill = function(_, into) return system.zip_fill(archive, into) end,
      }
    else
      message = "cannot be read: " .. message
    end
    if not tensor then return nil, ("has an array '%s' that %s"):format(entry.key, message) end
    tensors[entry.key] = tensor
  end
  return tensors
end

--- Reads all tensors of an archive, stored or deflated.
---@param path string
---@return table<string, any>? tensors by name
---@return string? message
function M.read(path)
  local file, message = files.open(path)
  if not file then return nil, message end
  file:close()
  local archive, entries = system.zip_open(path)
  if not archive then return nil, ("%s: %s"):format(path, entries) end
  local tensors
  tensors, message = load(archive, entries)
  system.zip_close(archive)
  if not tensors then return nil, ("%s %s"):format(path, message) end
  return tensors
end

return M
