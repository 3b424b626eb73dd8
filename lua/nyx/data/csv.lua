-- data.csv: tables of numbers or text. The parser is in bindings/lua/csv.c.
local check = require "nyx.check"
local files = require "nyx.io.file"
local system = require("nyx.core").system

--- Reads a table from a CSV file (RFC 4180), also a compressed one. With a dtype (float32
--- unless said otherwise), all fields must be numbers and the result is a tensor (rows,
--- columns); with dtype = "string" it is a list of rows of strings. Options: header = true
--- takes names from the first row, which come back as the second result; sep (","); skip,
--- how many lines to leave out first.
---@param path string
---@param options? {header: boolean, sep: string, dtype: string, skip: integer}
---@return any table
---@return string[]|string|nil names or the message
return function(path, options)
  check.type("data.csv", "path", path, "string")
  options = check.options("data.csv", options, "header sep dtype skip")
  local sep = options.sep or ","
  if type(sep) ~= "string" or #sep ~= 1 or sep:find('[%z\r\n"]') then
    check.fail("data.csv: 'sep' is %s, expected one character", check.describe(sep))
  end
  local dtype = check.type("data.csv", "dtype", options.dtype or "float32", "string")
  local skip = check.integer("data.csv", "skip", options.skip or 0, 0)
  local text, message = files.read(path)
  if not text then return nil, message end
  local rows, names = system.csv(text, sep, dtype, options.header or false, skip)
  if not rows then return nil, ("%s: %s"):format(path, names) end
  return rows, names
end
