-- What a gradient check is about: a function, its arguments, and calling it with other
-- tensors in their place. Read next: jacobian.lua.
local check = require "nyx.check"
local nyx = require "nyx"
local trees = require "nyx.tree"

local lift = nyx.lift
local is_tensor = nyx.is_tensor
local unpack = table.unpack or unpack

local M = {}

---@class nyx.gradcheck.Subject
---@field name string for messages
---@field fn function
---@field args table its arguments, with their number n
---@field checked integer[] which of them are checked
---@field input string[] what they are called, by place in `checked`
---@field output fun(j: integer): string what a result is called
---@field strict boolean whether results without a gradient count as constant

M.is_float = { float64 = true, float32 = true, float16 = true, bfloat16 = true }

function M.pack(...) return { n = select("#", ...), ... } end

--- The elements of a tensor as a list.
---@param t nyx.Tensor
---@return any[]
function M.values(t)
  return t:detach():reshape(-1):totable()
end

--- Element k of a tensor, in row-major order, as a position: "(2, 1)".
---@param shape integer[]
---@param k integer
---@return integer[]
function M.position(shape, k)
  local at, rest = {}, k - 1
  for d = #shape, 1, -1 do
    at[d] = rest % shape[d] + 1
    rest = (rest - rest % shape[d]) / shape[d]
  end
  return at
end

function M.element_text(shape, k)
  local at = M.position(shape, k)
  for d, i in ipairs(at) do at[d] = ("%d"):format(i) end
  return "element (" .. table.concat(at, ", ") .. ")"
end

--- Element k of a tensor as a 0-d view.
---@param t nyx.Tensor
---@param k integer
---@return nyx.Tensor
function M.cell(t, k)
  for _, i in ipairs(M.position(t.shape, k)) do t = t:select(1, i) end
  return t
end

--- A copy without history whose elements lie in memory in the order of t's, so that what
--- views and fast paths a function takes stays the same.
---@param t nyx.Tensor
---@return nyx.Tensor
function M.copy(t)
  t = t:detach()
  local stride, order, back = t:stride(), {}, {}
  if #stride < 2 then return t:clone() end
  for d = 1, #stride do order[d] = d end
  table.sort(order, function(a, b)
    if stride[a] ~= stride[b] then return stride[a] > stride[b] end
    return a < b
  end)
  for k, d in ipairs(order) do back[d] = k end
  return t:permute(order):clone():permute(back)
end

--- Calls the function under mode (nyx.no_grad, nyx.enable_grad) with other tensors in place of
--- the arguments `places`, also where it finds those by itself: the parameters of a module.
--- So the caller's tensors are neither written nor recorded.
---@param s nyx.gradcheck.Subject
---@param places integer[]
---@param tensors nyx.Tensor[]
---@param mode function
---@return nyx.Tensor[] results
function M.call(s, places, tensors, mode)
  for k, i in ipairs(places) do lift.exchange(s.args[i], tensors[k]) end
  local results = M.pack(pcall(mode, s.fn, unpack(s.args, 1, s.args.n)))
  for k = #places, 1, -1 do lift.exchange(s.args[places[k]], tensors[k]) end
  if not results[1] then error(results[2], 0) end
  local list = {}
  for i = 2, results.n do trees.leaves(results[i], list) end
  if #list == 0 then
    check.fail("%s: fn returned %s, expected a tensor, several, or a table of tensors", s.name,
      results.n == 1 and "nothing" or check.describe(results[2]))
  end
  for j, y in ipairs(list) do -- an argument itself: by now what it was exchanged for
    for k, i in ipairs(places) do
      if rawequal(y, s.args[i]) then list[j] = tensors[k] end
    end
  end
  return list
end

-- The first element in which two lists of values differ.
local function difference(a, b)
  for k = 1, math.max(#a, #b) do
    if a[k] ~= b[k] and (a[k] == a[k] or b[k] == b[k]) then return k end
  end
end

local function same_shape(a, b)
  return table.concat(a.shape, "x") == table.concat(b.shape, "x")
end

-- What differs between the results of two calls.
local function compare_results(first, second)
  if #first ~= #second then
    return ("the first gives %d tensors, the second %d"):format(#first, #second)
  end
  for j, y in ipairs(first) do
    if not same_shape(y, second[j]) then
      return ("output %d has shapes (%s) and (%s)"):format(j, table.concat(y.shape, "x"),
        table.concat(second[j].shape, "x"))
    end
    local a, b = M.values(y), M.values(second[j])
    local k = difference(a, b)
    if k then
      return ("output %d, %s, is %s and %s"):format(j, M.element_text(y.shape, k),
        tostring(a[k]), tostring(b[k]))
    end
  end
end

--- Calls the function twice on copies of its arguments: it has to leave them as they are and
--- to give the same again, or there is nothing to differentiate.
---@param s nyx.gradcheck.Subject
---@return nyx.Tensor[] results
---@return string? problem
function M.probe(s)
  local places, copies, before = {}, {}, {}
  for i = 1, s.args.n do
    if is_tensor(s.args[i]) then
      places[#places + 1] = i
      copies[#places] = M.copy(s.args[i])
      before[#places] = M.values(s.args[i])
    end
  end
  local results = M.call(s, places, copies, nyx.no_grad)
  for k, i in ipairs(places) do
    local after = M.values(copies[k])
    local at = difference(before[k], after)
    if at then
      return results, ("fn changes input %d in place: %s was %s and is %s; let it work on a copy "
        .. "(clone)"):format(i, M.element_text(copies[k].shape, at), tostring(before[k][at]),
        tostring(after[at]))
    end
    copies[k] = M.copy(s.args[i]) -- results may be views of the first copies
  end
  local what = compare_results(results, M.call(s, places, copies, nyx.no_grad))
  if what then
    what = ("fn is random, or keeps a state: of two calls with the same inputs, %s; call "
      .. "nyx.manual_seed in it, or leave out what is random (dropout: net:eval())"):format(what)
  end
  return results, what
end

return M
