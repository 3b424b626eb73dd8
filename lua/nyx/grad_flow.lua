-- nyx.grad_flow: how large the gradients of a model are, layer by layer, as numbers and as
-- bars in the terminal. Read next: lua/nyx/train/progress.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local trees = require "nyx.tree"

local system = nyx.system

local M = {}

-- ---------------------------------------------------------------- numbers

---@class nyx.GradFlowRow
---@field name string of the parameter, or the layer
---@field state string "ok", "zero", "missing", "nan" or "inf"
---@field norm number? of its gradient
---@field max number? the largest magnitude in it
---@field ratio number? norm / weight
---@field weight number the norm of the parameter itself
---@field count integer elements

--- A list of rows in the order of the model; tostring draws them.
---@class nyx.GradFlow
---@field norm number of all gradients together
---@field [integer] nyx.GradFlowRow
local Flow = {}
Flow.__index = Flow

-- The norm and the largest magnitude of a tensor, nan where it holds one.
local function measure(t)
  local x = t:detach():to("cpu", "float64"):reshape({ -1 })
  if x:numel() == 0 then return 0, 0 end
  local largest = x:abs():amax():item()
  if largest ~= largest or largest == 0 or largest == math.huge then
    return largest, largest
  end
  x = x / largest -- squares neither overflow nor vanish
  return math.sqrt((x * x):sum():item()) * largest, largest
end

-- The norm of two parts together.
local function joined(a, b)
  if a ~= a or b ~= b then return 0 / 0 end
  local more, less = math.max(a, b), math.min(a, b)
  if less == 0 or more == math.huge then return more end
  return more * math.sqrt(1 + (less / more) ^ 2)
end

local function add(row, norm, largest)
  row.norm = joined(row.norm, norm)
  if row.max == row.max and (largest ~= largest or largest > row.max) then row.max = largest end
end

-- What is wrong with a row, or "ok".
local function state_of(row)
  if not row.has_grad then return "missing" end
  if row.max ~= row.max then return "nan" end
  if row.max == math.huge then return "inf" end
  return row.max == 0 and "zero" or "ok"
end

local function finish(row)
  local norm = row.has_grad and row.norm or nil
  return { name = row.name, state = state_of(row), count = row.count, weight = row.weight,
    norm = norm, max = row.has_grad and row.max or nil,
    ratio = norm and row.weight > 0 and norm / row.weight or nil }
end

-- Calls fn(name, tensor) for the parameters of a module, or of a table of tensors.
local function each(model, fn)
  if type(model) == "table" and model.named_parameters then
    for name, parameter in model:named_parameters() do fn(name, parameter) end
    return
  end
  if type(model) ~= "table" then
    check.fail("grad_flow: 'model' is %s, expected a module or a table of tensors",
      check.describe(model))
  end
  for _, name in ipairs(trees.keys(model)) do
    fn(tostring(name), check.tensor("grad_flow", tostring(name), model[name]))
  end
end

--- The gradients of a model after a backward pass: a row for every parameter that requires
--- one, with its norm, its largest element, and the norm's ratio to that of the weights.
--- state is "ok", "zero", "missing", "nan" or "inf". Printed, it is a plot of the norms on a
--- logarithmic scale. Options: layers, whether the parameters of a layer share a row;
--- columns and terminal, what to draw for, if not as found.
---@param model nyx.nn.Module|table<string, nyx.Tensor>
---@param options? {layers: boolean, columns: integer, terminal: boolean}
---@return nyx.GradFlow
function M.grad_flow(model, options)
  options = check.options("grad_flow", options, "layers columns terminal")
  if options.columns ~= nil then check.integer("grad_flow", "columns", options.columns) end
  local rows, by_name = {}, {}
  nyx.no_grad(each, model, function(name, parameter)
    if not parameter.requires_grad then return end
    if options.layers then name = name:match("^(.*)%.[^.]*$") or name end
    local row = by_name[name]
    if not row then
      row = { name = name, norm = 0, max = 0, weight = 0, count = 0 }
      by_name[name] = row
      rows[#rows + 1] = row
    end
    row.weight = joined(row.weight, (measure(parameter)))
    row.count = row.count + parameter:numel()
    if parameter.grad then
      row.has_grad = true
      add(row, measure(parameter.grad))
    end
  end)
  local flow = setmetatable({ norm = 0 }, Flow)
  for i, row in ipairs(rows) do
    flow[i] = finish(row)
    flow.norm = joined(flow.norm, row.norm)
  end
  flow.columns, flow.terminal = options.columns, options.terminal
  return flow
end

-- ---------------------------------------------------------------- the plot

local blocks = { "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

-- How many columns UTF-8 text takes: bytes that begin a character.
local function width_of(text)
  local _, continuing = text:gsub("[\128-\191]", "")
  return #text - continuing
end

local function padded(text, width)
  return text .. (" "):rep(width - width_of(text))
end

-- The end of a name that is too long.
local function shortened(name, width)
  if width_of(name) <= width then return name end
  local characters = {}
  for c in name:gmatch("[%z\1-\127\192-\255][\128-\191]*") do characters[#characters + 1] = c end
  return ".." .. table.concat(characters, "", #characters - width + 3)
end

local function number_text(value)
  return ("%9s"):format(value and ("%.2e"):format(value) or "-")
end

local function bar(share, width, drawn)
  if not drawn then return ("#"):rep(math.max(1, math.floor(share * width + 0.5))) end
  local eighths = math.max(1, math.floor(share * width * 8 + 0.5))
  return ("█"):rep(math.floor(eighths / 8)) .. (blocks[eighths % 8] or "")
end

-- The powers of ten around the norms that can be drawn.
local function decades(flow)
  local low, high
  for _, row in ipairs(flow) do
    if row.state == "ok" and row.norm > 0 then
      local at = math.log(row.norm) / math.log(10)
      low, high = math.min(low or at, at), math.max(high or at, at)
    end
  end
  if not low then return nil end
  low, high = math.floor(low), math.ceil(high)
  return low, high > low and high or low + 1
end

local remarks = { zero = "all zero", missing = "no gradient", nan = "NaN", inf = "infinite" }

function Flow:__tostring()
  if #self == 0 then return "no parameter requires a gradient" end
  local terminal, found = system.terminal("stdout")
  if self.terminal ~= nil then terminal = self.terminal end
  local columns = math.max(self.columns or found, 24)
  local name_width = 4
  for _, row in ipairs(self) do name_width = math.max(name_width, width_of(row.name)) end
  name_width = math.min(name_width, math.floor(columns * 0.4))
  local details = columns - name_width - 30 >= 12 -- also max and ratio
  local width = columns - name_width - (details and 31 or 11)
  local low, high = decades(self)
  local head = padded("", name_width) .. ("%10s"):format("norm")
  if details then head = head .. ("%10s%10s"):format("max", "ratio") end
  local lines = { head }
  for _, row in ipairs(self) do
    local line = padded(shortened(row.name, name_width), name_width) .. " " ..
      number_text(row.norm)
    if details then line = line .. " " .. number_text(row.max) .. " " .. number_text(row.ratio) end
    if row.state ~= "ok" then
      local remark = remarks[row.state]:sub(1, width)
      line = line .. " " .. (terminal and "\27[31m" .. remark .. "\27[0m" or remark)
    elseif row.norm > 0 then
      local share = (math.log(row.norm) / math.log(10) - low) / (high - low)
      line = line .. " " .. bar(share, width, terminal)
    end
    lines[#lines + 1] = line
  end
  if low then
    local from, to = ("1e%d"):format(low), ("1e%d"):format(high)
    local scale = from .. (" "):rep(width - #from - #to) .. to
    if #from + #to < width then
      lines[#lines + 1] = (" "):rep(columns - width) .. scale
    end
  end
  return table.concat(lines, "\n")
end

return M
