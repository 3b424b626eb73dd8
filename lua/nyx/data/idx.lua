-- data.idx: the IDX files of MNIST and its kin: two zero bytes, a type, the number of
-- dimensions, their sizes, the elements; everything big-endian.
local check = require "nyx.check"
local system = require("nyx.core").system
local files = require "nyx.io.file"

local formats = { [0x08] = ">u1", [0x09] = ">i1", [0x0B] = ">i2", [0x0C] = ">i4",
  [0x0D] = ">f4", [0x0E] = ">f8" }

--- Reads a tensor from an IDX file; compressed files are decompressed. 16-bit integers
--- become int32.
---@param path string
---@return any tensor
---@return string? message
return function(path)
  check.type("data.idx", "path", path, "string")
  local bytes, message = files.read(path)
  if not bytes then return nil, message end
  local zero1, zero2, kind, dims = bytes:byte(1, 4)
  if not dims or zero1 ~= 0 or zero2 ~= 0 or not formats[kind] then
    return nil, ("%s: this is no IDX file"):format(path)
  end
  if dims > 8 then
    return nil, ("%s: %d dimensions, expected at most 8"):format(path, dims)
  end
  if #bytes < 4 + 4 * dims then return nil, ("%s: the file ends too early"):format(path) end
  local shape, count = {}, 1.0
  for d = 1, dims do
    local a, b, c, e = bytes:byte(1 + 4 * d, 4 + 4 * d)
    shape[d] = ((a * 256 + b) * 256 + c) * 256 + e
    count = count * shape[d]
  end
  local expected = count * tonumber(formats[kind]:sub(3))
  if #bytes - 4 - 4 * dims ~= expected then
    return nil, ("%s: %d bytes of elements, the sizes (%s) need %.0f"):format(path,
      #bytes - 4 - 4 * dims, table.concat(shape, "x"), expected)
  end
  local tensor, problem = system.decode(bytes, 5 + 4 * dims, formats[kind], shape)
  if not tensor then return nil, ("%s: %s"):format(path, problem) end
  return tensor
end
