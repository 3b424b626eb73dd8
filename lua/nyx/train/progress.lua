-- train.progress: a bar around a loop, with rate and time left. On a terminal one line is
-- redrawn; elsewhere (a file, a pipe) plain lines appear, few and far between.
local class = require "nyx.class"
local check = require "nyx.check"
local system = require("nyx.core").system

--- for x, y in progress(loader, {label = "epoch 1"}) do ... end
---@class nyx.train.Progress
local Progress = class("Progress")

local REDRAW = 0.1 -- seconds between redraws on a terminal
local REPORT = 10 -- seconds between lines elsewhere

local blocks = { "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

local function duration(seconds)
  seconds = math.floor(seconds + 0.5)
  local hours = math.floor(seconds / 3600)
  local minutes = math.floor(seconds / 60) % 60
  if hours > 0 then return ("%d:%02d:%02d"):format(hours, minutes, seconds % 60) end
  return ("%d:%02d"):format(minutes, seconds % 60)
end

local function rate_text(rate)
  if rate >= 1e4 then return ("%.1fk/s"):format(rate / 1e3) end
  if rate >= 10 then return ("%.0f/s"):format(rate) end
  if rate >= 0.1 then return ("%.2f/s"):format(rate) end
  return ("%.1f s each"):format(1 / rate)
end

local function bar(share, width)
  local eighths = math.floor(share * width * 8 + 0.5)
  local full, rest = math.floor(eighths / 8), eighths % 8
  local text = ("█"):rep(full) .. (rest > 0 and blocks[rest] or "")
  return text .. (" "):rep(width - full - (rest > 0 and 1 or 0))
end

--- `source` is a loader (or anything with iter and count), a number of rounds, or an
--- iterator function. Options: label; total, how many rounds an iterator has; file (stderr);
--- terminal, whether to draw, if not as found; columns; clock.
---@param source any
---@param options? table
function Progress:init(source, options)
  options = check.options("train.progress", options, "label total file terminal columns clock")
  self.label = options.label or ""
  self.file = options.file or io.stderr
  local is_terminal, columns = system.terminal("stderr")
  self.terminal = options.terminal
  if self.terminal == nil then self.terminal = is_terminal and self.file == io.stderr end
  self.columns = options.columns or columns
  self.clock = options.clock or system.clock
  self.total, self.values, self.order = options.total, {}, {}
  if type(source) == "table" and source.iter then
    self.next = source:iter()
    self.total = self.total or source.count and source:count()
  elseif type(source) == "number" then
    local i = 0
    self.total = source
    self.next = function()
      i = i + 1
      if i <= source then return i end
    end
  elseif type(source) == "function" then
    self.next = source
  else
    check.fail("train.progress: the source is %s, expected a loader, a number or an iterator",
      check.describe(source))
  end
  self.done, self.start = 0, self.clock()
  self.shown = self.start
end

--- Shows a value behind the bar: bar:set("loss", 0.25). Values keep their order.
---@param name string
---@param value number|string
function Progress:set(name, value)
  if self.values[name] == nil then self.order[#self.order + 1] = name end
  self.values[name] = type(value) == "number" and ("%.4g"):format(value) or tostring(value)
end

-- The parts of the line around the bar.
function Progress:status(now)
  local elapsed = math.max(now - self.start, 1e-9)
  local parts = {}
  if self.total then
    parts[1] = ("%d/%d"):format(self.done, self.total)
  else
    parts[1] = tostring(self.done)
  end
  if self.done > 0 then
    parts[#parts + 1] = rate_text(self.done / elapsed)
    local left = self.total and (self.total - self.done) * elapsed / self.done
    if left and self.done < self.total then
      parts[#parts + 1] = duration(left) .. " left"
    else
      parts[#parts + 1] = duration(elapsed)
    end
  end
  for _, name in ipairs(self.order) do
    parts[#parts + 1] = name .. " " .. self.values[name]
  end
  return table.concat(parts, "  ")
end

function Progress:draw(now)
  local status = self:status(now)
  local head = self.label ~= "" and self.label .. "  " or ""
  if not self.total then return head .. status end
  local share = self.total > 0 and math.min(self.done / self.total, 1) or 1
  local percent = ("%3d%%"):format(math.floor(share * 100))
  if not self.terminal then return ("%s%s  %s"):format(head, percent, status) end
  local width = self.columns - #head - #percent - #status - 6
  if width < 5 then return ("%s%s  %s"):format(head, percent, status) end
  return ("%s%s ▕%s▏ %s"):format(head, percent, bar(share, math.min(width, 40)), status)
end

function Progress:report(now, last)
  self.shown = now
  if self.terminal then
    self.file:write("\r", self:draw(now), "\27[K", last and "\n" or "")
    self.file:flush()
  else
    self.file:write(self:draw(now), "\n")
  end
end

-- Passes on what the loop's source gives.
local function pass(self, first, ...)
  local now = self.clock()
  if first == nil then
    if not self.finished then self:report(now, true) end
    self.finished = true
    return nil
  end
  if now - self.shown >= (self.terminal and REDRAW or REPORT) then self:report(now) end
  self.done = self.done + 1
  return first, ...
end

function Progress:__call()
  return pass(self, self.next())
end

return Progress
