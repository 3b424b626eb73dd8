-- Reads expressions: the texts of rows (kernels/elementwise.def) and what people write, the
-- same without the prefix nyx_ and K(...), with comparisons, `and`, `or`, `not` and ^ as in
-- Lua. The grammar, loosest first:
--   or, and, == ~= < <= > >=, + -, * /, unary - and not, ^ (from the right)
-- A syntax tree is {op = name, ...}, {number = v} or {name = n}; derivative.lua makes
-- simplified trees of it. Read next: lua/nyx/derivative/tree.lua, core/grad/expression.c.
local nyx = require "nyx"
local check = require "nyx.check"

-- Deeper texts are refused rather than running out of stack.
local DEEPEST = 150

-- What functions of the dialect and of everyday life stand for.
local alias = { select = "where", min = "minimum", max = "maximum", ["and"] = "logical_and",
  ["or"] = "logical_or", ["not"] = "logical_not", xor = "logical_xor" }
local compare = { ["=="] = "eq", ["~="] = "ne", ["<"] = "lt", ["<="] = "le", [">"] = "gt",
  [">="] = "ge" }
local words = { ["and"] = true, ["or"] = true, ["not"] = true }

---@class nyx.Syntax
---@field op string?
---@field number number?
---@field name string?

local Reader = {}
Reader.__index = Reader

function Reader:fail(at, message, ...)
  local text = self.text
  if #text > 60 then -- what stands around the mistake
    local first = math.max(1, math.min(at - 30, #text - 59))
    text = (first > 1 and ".." or "") .. text:sub(first, first + 59)
      .. (first + 59 < #text and ".." or "")
  end
  check.fail("derivative: cannot read '%s', position %d: %s", text, at, message:format(...))
end

-- The next token: its text, its kind ("number", "name", "sign" or "end") and where it is.
function Reader:advance()
  local text, at = self.text, self.text:find("%S", self.after) or #self.text + 1
  local rest = text:sub(at, at + 400)
  self.at, self.kind = at, "number"
  local token = rest:match("^%d+%.?%d*[eE][+-]?%d+") or rest:match("^%.%d+[eE][+-]?%d+")
    or rest:match("^%d+%.?%d*") or rest:match("^%.%d+")
  if not token then
    token, self.kind = rest:match("^[%a_][%w_]*"), "name"
  end
  if not token then
    token, self.kind = rest:match("^[=~<>]=") or rest:sub(1, 1), "sign"
  end
  if token == "" then self.kind = "end" end
  self.token, self.after = token, at + #token
end

function Reader:skip(token)
  if self.token ~= token then return false end
  self:advance()
  return true
end

function Reader:got()
  return self.kind == "end" and "the text ends" or ("got '%s'"):format(self.token)
end

function Reader:expect(token, why)
  if self:skip(token) then return end
  self:fail(self.at, "%s, expected '%s'%s", self:got(), token, why or "")
end

local function binary(op, a, b) return { op = op, a, b } end

-- Arguments of a function whose name and "(" are read.
function Reader:arguments()
  local list = {}
  if self:skip(")") then return list end
  repeat list[#list + 1] = self:expression() until not self:skip(",")
  self:expect(")", " or ',' after an argument")
  return list
end

local function count_text(op)
  local least, most = #op.inputs, #op.inputs + #op.attrs
  local names = {}
  for _, input in ipairs(op.inputs) do names[#names + 1] = input.name end
  for _, attr in ipairs(op.attrs) do names[#names + 1] = "[" .. attr.name .. "]" end
  return least, most, ("%s(%s)"):format(op.name, table.concat(names, ", "))
end

function Reader:call(name, at)
  name = name:gsub("^nyx_", "")
  local args = self:arguments()
  if name == "K" and #args == 1 then return args[1] end
  if name == "fma" and #args == 3 then
    return binary("add", binary("mul", args[1], args[2]), args[3])
  end
  local op = nyx.op(alias[name] or name)
  if not op then
    self:fail(at, "no op is called '%s', expected an elementwise op; help() lists them", name)
  elseif not op.text then
    self:fail(at, "'%s' (%s) is no row of elementwise ops, expected one; its gradient is had "
      .. "from nyx.grad", name, op.kind)
  end
  local least, most, usage = count_text(op)
  if #args < least or #args > most then
    self:fail(at, "'%s' has %d argument%s, expected %s", name, #args, #args == 1 and "" or "s",
      usage)
  end
  args.op = op.name
  return args
end

function Reader:primary()
  local token, at, kind = self.token, self.at, self.kind
  if kind == "number" then
    self:advance()
    return { number = tonumber(token) }
  elseif self:skip("(") then
    local inner = self:expression()
    self:expect(")")
    return inner
  elseif kind == "name" and not words[token] then
    self:advance()
    if self:skip("(") then return self:call(token, at) end
    if token == "inf" then return { number = math.huge } end
    if not self.names[token] then
      self:fail(at, "unknown name '%s', expected %s", token, self.expected)
    end
    self.used[token] = true
    return { name = token }
  end
  self:fail(at, "%s, expected a number, a name or '('", self:got())
end

function Reader:power()
  local base = self:primary()
  if not self:skip("^") then return base end
  return binary("pow", base, self:unary())
end

function Reader:unary()
  self.depth = self.depth + 1
  if self.depth > DEEPEST then self:fail(self.at, "nested more than %d deep", DEEPEST) end
  local node = self:skip("-") and { op = "neg", self:unary() }
    or self:skip("not") and { op = "logical_not", self:unary() } or self:power()
  self.depth = self.depth - 1
  return node
end

function Reader:product()
  local left = self:unary()
  while self.token == "*" or self.token == "/" do
    local op = self:skip("*") and "mul" or self:skip("/") and "div"
    left = binary(op, left, self:unary())
  end
  return left
end

function Reader:sum()
  local left = self:product()
  while self.token == "+" or self.token == "-" do
    local op = self:skip("+") and "add" or self:skip("-") and "sub"
    left = binary(op, left, self:product())
  end
  return left
end

function Reader:comparison()
  local left = self:sum()
  local op = compare[self.token]
  if not op then return left end
  self:advance()
  return binary(op, left, self:sum())
end

function Reader:conjunction()
  local left = self:comparison()
  while self:skip("and") do left = binary("logical_and", left, self:comparison()) end
  return left
end

function Reader:expression()
  local left = self:conjunction()
  while self:skip("or") do left = binary("logical_or", left, self:conjunction()) end
  return left
end

--- The syntax tree of a text; a mistake is an error with its position.
---@param text string
---@param names table<string, boolean> the names of variables and attributes it may use
---@param expected string what they are, for the message
---@return nyx.Syntax
---@return table<string, boolean> used the names that occur
return function(text, names, expected)
  local reader = setmetatable({ text = text, names = names, expected = expected, used = {},
    after = 1, depth = 0 }, Reader)
  reader:advance()
  local node = reader:expression()
  if reader.kind ~= "end" then
    reader:fail(reader.at, "%s, expected an operator or the end", reader:got())
  end
  return node, reader.used
end
