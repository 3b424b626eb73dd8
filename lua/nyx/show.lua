-- nyx.show: small grey images as text.
local check = require "nyx.check"
local system = require("nyx.core").system

local M = {}

local shades = { " ", "░", "▒", "▓", "█" }

-- Pixels as whole numbers 0..levels-1.
local function levels_of(image, low, high, levels)
  local rows = image:totable()
  for _, row in ipairs(rows) do
    for x, value in ipairs(row) do
      local share = (value - low) / (high - low)
      if share ~= share then share = 0 end -- nan
      row[x] = math.floor(math.min(math.max(share, 0), 1) * (levels - 1) + 0.5)
    end
  end
  return rows
end

-- Two pixels in one character: the upper half block in a grey on a grey ground, of the 24
-- greys of a 256-colour terminal.
local function half_blocks(image, low, high)
  local rows, lines = levels_of(image, low, high, 24), {}
  for y = 1, #rows, 2 do
    local line = {}
    for x, upper in ipairs(rows[y]) do
      local lower = rows[y + 1] and rows[y + 1][x] or 0
      line[x] = ("\27[38;5;%d;48;5;%dm▀"):format(232 + upper, 232 + lower)
    end
    lines[#lines + 1] = table.concat(line) .. "\27[0m"
  end
  return lines
end

-- One pixel in two characters, darker is emptier.
local function shade_blocks(image, low, high)
  local rows, lines = levels_of(image, low, high, #shades), {}
  for y, row in ipairs(rows) do
    for x, level in ipairs(row) do row[x] = shades[level + 1]:rep(2) end
    lines[y] = table.concat(row)
  end
  return lines
end

--- Images side by side, each with a caption below: a list of {image, caption}, where the
--- image is a tensor (height, width). Options: low and high, the values of black and white
--- (of all images, unless given); colour, whether to use greys of the terminal (if standard
--- output is one).
---@param images table
---@param options? {low: number, high: number, colour: boolean}
---@return string
function M.images(images, options)
  check.type("show.images", "images", images, "table")
  options = check.options("show.images", options, "low high colour")
  local colour = options.colour
  if colour == nil then colour = system.terminal("stdout") end
  local low, high = options.low, options.high
  local first, last, shown = math.huge, -math.huge, {}
  for i, entry in ipairs(images) do
    check.type("show.images", ("images[%d]"):format(i), entry, "table")
    local image = check.tensor("show.images", ("image %d"):format(i), entry[1])
    if image.dtype == "bool" then image = image:to "uint8" end -- black and white
    if image:dim() ~= 2 then
      check.fail("show.images: image %d has shape (%s), expected (height, width)", i,
        table.concat(image.shape, "x"))
    end
    shown[i] = image
    first = math.min(first, image:min():item())
    last = math.max(last, image:max():item())
  end
  low, high = low or first, high or last
  if high <= low or high ~= high then high = low + 1 end
  local columns, height = {}, 0
  for i, entry in ipairs(images) do
    local image = shown[i]
    columns[i] = {
      lines = (colour and half_blocks or shade_blocks)(image, low, high),
      width = image:size(2) * (colour and 1 or 2),
      caption = tostring(entry[2] or ""),
    }
    columns[i].cell = math.max(columns[i].width, #columns[i].caption)
    height = math.max(height, #columns[i].lines)
  end
  local lines = {}
  for y = 1, height + 1 do
    local parts = {}
    for i, column in ipairs(columns) do
      local text, width = column.lines[y], column.width
      if y == height + 1 then text, width = column.caption, #column.caption end
      if not text then text, width = "", 0 end
      parts[i] = text .. (" "):rep(column.cell - width)
    end
    lines[y] = (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  return table.concat(lines, "\n")
end

--- One image as text.
---@param image any a tensor (height, width)
---@param options? {low: number, high: number, colour: boolean}
---@return string
function M.image(image, options)
  return (M.images({ { image } }, options):gsub("\n$", ""))
end

return M
