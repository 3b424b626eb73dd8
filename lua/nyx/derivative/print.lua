-- The text of one node of an expression, from the texts of its parts: infix, with as few
-- parentheses as the order of operations allows. Read next: tree.lua, parse.lua.
local nyx = require "nyx"

local unpack = unpack or table.unpack

-- How tightly a text binds; parse.lua reads the same order.
local OR, AND, COMPARISON, SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4, 5, 6, 7

-- The least digits that read back as the same double.
local function number_text(v)
  if v == math.huge then return "inf" elseif v == -math.huge then return "-inf" end
  if v % 1 == 0 and math.abs(v) < 1e15 then return ("%.0f"):format(v) end
  local text
  for digits = 1, 17 do
    text = ("%." .. digits .. "g"):format(v)
    if tonumber(text) == v then break end
  end
  return (text:gsub("e%+?(%-?)0*(%d)", "e%1%2"))
end

-- m, n where v is the quotient of two small integers and its decimals go on for ever.
local function fraction(v)
  if v > 1e6 or #number_text(v) < 12 then return nil end
  for n = 3, 99 do
    local m = math.floor(v * n + 0.5)
    if m > 0 and m / n == v then return m, n end
  end
end

-- A number, or the division that it is.
local function value_text(v)
  local m, n = fraction(math.abs(v))
  if not n then return number_text(v), v < 0 and PRODUCT or ATOM end
  return ("%s%d / %d"):format(v < 0 and "-" or "", m, n), PRODUCT
end

-- A part's text, in parentheses when it binds less tightly than its place needs.
local function part(node, level)
  return node.level < level and "(" .. node.text .. ")" or node.text
end

local function factor_text(base, exponent)
  if exponent == 1 then return part(base, POWER) end
  return part(base, ATOM) .. "^" .. number_text(exponent)
end

local sum_text

-- Where a minus sign can go into a difference: the index of that factor, else nil.
local function difference(coef, factors)
  for i, factor in ipairs(factors) do
    local sum = factor[1]
    if sum.kind == "sum" and factor[2] % 2 == 1 and (coef == -1 or sum.const == 0) then
      local mixed = false
      for _, term in ipairs(sum.terms) do mixed = mixed or term[1] < 0 end
      if mixed then return i end
    end
  end
end

-- Whether a product is negative, its text without the sign, and its level.
local function product_parts(coef, factors)
  local flipped = coef < 0 and difference(coef, factors)
  if flipped then coef = -coef end
  local above, below = {}, {}
  local whole = false -- a `where` below the line would take in what it is multiplied with
  for i, factor in ipairs(factors) do
    local base, exponent = factor[1], factor[2]
    whole = whole or exponent == -1 and base.kind == "call" and base.name == "where"
    if i == flipped then
      local text = "(" .. sum_text(base, -1) .. ")"
      if math.abs(exponent) ~= 1 then text = text .. "^" .. number_text(math.abs(exponent)) end
      table.insert(exponent > 0 and above or below, text)
    else
      table.insert(exponent > 0 and above or below, factor_text(base, math.abs(exponent)))
    end
  end
  local size = math.abs(coef)
  local m, n = fraction(size)
  if n then
    size = m
    table.insert(below, 1, number_text(n))
  end
  if size ~= 1 or #above == 0 then table.insert(above, 1, number_text(size)) end
  local text = table.concat(above, " * ")
  if whole then
    text = table.concat({ text, unpack(below) }, " / ")
  elseif #below == 1 then
    text = text .. " / " .. below[1]
  elseif #below > 1 then
    text = text .. " / (" .. table.concat(below, " * ") .. ")"
  end
  local single = coef > 0 and #above == 1 and #below == 0
  return coef < 0, text, single and factors[1][2] ~= 1 and POWER or PRODUCT
end

-- In the order of the terms, the number last, but beginning with one that is positive.
function sum_text(node, sign)
  local texts, negative, first = {}, {}, nil
  local function add(minus, text)
    texts[#texts + 1], negative[#texts + 1] = text, minus
    if not minus and not first then first = #texts end
  end
  for _, term in ipairs(node.terms) do
    local coef, factors = sign * term[1], { { term[2], 1 } }
    if term[2].kind == "prod" then factors = term[2].factors end
    local minus, text = product_parts(coef, factors)
    add(minus, text)
  end
  local const = sign * node.const
  if const ~= 0 then add(const < 0, (value_text(math.abs(const)))) end
  first = first or 1
  local parts = { (negative[first] and "-" or "") .. texts[first] }
  for i, text in ipairs(texts) do
    if i ~= first then parts[#parts + 1] = (negative[i] and " - " or " + ") .. text end
  end
  return table.concat(parts)
end

local infix = {
  eq = { "==", COMPARISON }, ne = { "~=", COMPARISON }, lt = { "<", COMPARISON },
  le = { "<=", COMPARISON }, gt = { ">", COMPARISON }, ge = { ">=", COMPARISON },
  logical_and = { "and", AND }, logical_or = { "or", OR },
}
local short = { minimum = "min", maximum = "max" }

-- How many arguments are written: attributes at the end that have their defaults are not.
local function written(op, args)
  local n = #args
  while n > #op.inputs do
    local preset = op.attrs[n - #op.inputs].preset
    if args[n].kind ~= "num" or args[n].value ~= preset then break end
    n = n - 1
  end
  return n
end

local function call_text(node)
  local name, args = node.name, node.args
  local how = infix[name]
  if how then
    -- A comparison of comparisons needs parentheses on both sides, `and` associates.
    local right = how[2] + 1
    local left = how[2] == COMPARISON and right or how[2]
    return part(args[1], left) .. " " .. how[1] .. " " .. part(args[2], right), how[2]
  elseif name == "pow" then
    return part(args[1], ATOM) .. "^" .. part(args[2], POWER), POWER
  elseif name == "logical_not" then
    return "not " .. part(args[1], POWER), PRODUCT
  end
  local texts = {}
  for i = 1, written(nyx.op(name), args) do texts[i] = args[i].text end
  return (short[name] or name) .. "(" .. table.concat(texts, ", ") .. ")", ATOM
end

local kinds = {
  num = function(node) return value_text(node.value) end,
  sym = function(node) return node.name, ATOM end,
  sum = function(node) return sum_text(node, 1), SUM end,
  call = call_text,
  prod = function(node)
    local negative, text, level = product_parts(node.coef, node.factors)
    return negative and "-" .. text or text, level
  end,
}

--- The text of a node and how tightly it binds.
---@param node nyx.Expression
---@return string text
---@return integer level
return function(node) return kinds[node.kind](node) end
