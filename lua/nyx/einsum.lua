-- Sums of products by the names of dimensions: nyx.einsum, tensordot and inner. Two operands are
-- one matmul over views, with a copy only where dimensions that become one do not lie together
-- in memory; of more operands those two go first whose product takes least memory.
-- Read next: products.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local docs = require("nyx.tensor").docs

local Tensor, geometry = nyx.Tensor, nyx.system.geometry

-- ---------------------------------------------------------------- steps that come again

-- What a call did with its operands, by what they looked like: the same shapes come again and
-- again, and finding the way takes longer than small products do. Values are numbered, the
-- operands first, then the result of each step: the name of a method, the value it is called
-- on, and the other value it takes or false and its arguments.
local plans, many_plans = {}, 0
local plan, place -- of the call that is recorded: its steps, and which value each tensor is
local while_alive = { __mode = "k" }

-- x:name(...) as one more step.
local function step(name, x, a, b, c)
  local y = x[name](x, a, b, c)
  local other = place[a]
  plan[#plan + 1] = other and { name, place[x], other } or { name, place[x], false, a, b, c }
  plan.values = plan.values + 1
  place[y] = plan.values
  return y
end

-- What a call says, and how its operands lie.
local function plan_key(text, operands)
  local key = { text, ";" }
  for i = 1, #operands do key[i + 2] = geometry(operands[i]) end
  return table.concat(key)
end

-- The result for the operands by the steps that find(operands) takes, which are found once for
-- what the call says, `text`, and each way the operands lie.
local function by_plan(text, operands, find)
  local key = plan_key(text, operands)
  local known = plans[key]
  if known then
    for i = 1, #known do
      local s = known[i]
      local x, other = operands[s[2]], s[3]
      if other then
        operands[#operands + 1] = x[s[1]](x, operands[other])
      else
        operands[#operands + 1] = x[s[1]](x, s[4], s[5], s[6])
      end
    end
    return operands[known.result]
  end
  local views = {}
  plan, place = { values = #operands }, setmetatable({}, while_alive)
  for i, x in ipairs(operands) do -- one tensor may be given twice
    views[i] = x:alias()
    place[views[i]] = i
  end
  local found, y = plan, find(views)
  found.result = place[y]
  if many_plans == 1000 then plans, many_plans = {}, 0 end
  plans[key], many_plans = found, many_plans + 1
  return operands[found.result] or y
end

-- ---------------------------------------------------------------- one operand

-- An operand: a tensor and a label for each of its dimensions, no two the same. A label has one
-- size in all operands: dimensions of size 1 that broadcast are taken away first.
local function operand_of(x, labels) return { x = x, labels = labels, shape = x.shape } end

local function position(labels, label)
  for i = 1, #labels do
    if labels[i] == label then return i end
  end
end

-- x with its dimensions in another order; x itself where they are so already.
local function arranged(x, order)
  for i = 1, #order do
    if order[i] ~= i then return step("permute", x, order) end
  end
  return x
end

-- The operand summed over the labels for which drop(label, size) holds.
local function without(operand, drop)
  local labels, dims, shape, rest, alone = {}, {}, operand.shape, {}, true
  for i, label in ipairs(operand.labels) do
    if drop(label, shape[i]) then
      dims[#dims + 1] = i
      alone = alone and shape[i] == 1
    else
      labels[#labels + 1], rest[#rest + 1] = label, shape[i]
    end
  end
  if #dims == 0 then return operand end
  return operand_of(alone and step("reshape", operand.x, rest) or
    step("sum", operand.x, dims), labels)
end

-- x in the dimensions of `order`, of size 1 where it has none of a label.
local function spread(operand, order)
  local own, dims, shape = operand.shape, {}, {}
  for i, label in ipairs(order) do
    local at = position(operand.labels, label)
    shape[i] = at and own[at] or 1
    dims[#dims + 1] = at
  end
  local x = arranged(operand.x, dims)
  return #dims == #order and x or step("reshape", x, shape)
end

-- x as (batch..., rows, columns), each group of rows and columns one dimension.
local function matrix(operand, batch, rows, columns)
  local order, shape, own = {}, {}, operand.shape
  for _, label in ipairs(batch) do
    order[#order + 1] = position(operand.labels, label)
    shape[#shape + 1] = own[order[#order]]
  end
  for _, group in ipairs { rows, columns } do
    local size = 1
    for _, label in ipairs(group) do
      order[#order + 1] = position(operand.labels, label)
      size = size * own[order[#order]]
    end
    shape[#shape + 1] = size
  end
  local x = arranged(operand.x, order)
  return #rows == 1 and #columns == 1 and x or step("reshape", x, shape)
end

-- Whether the dimensions of a group, in this order, can be one without a copy.
local function lies_together(operand, group)
  local stride, shape = operand.x:stride(), operand.shape
  for i = 1, #group - 1 do
    local p, q = position(operand.labels, group[i]), position(operand.labels, group[i + 1])
    if stride[p] ~= stride[q] * shape[q] then return false end
  end
  return true
end

-- A group in the order in which it lies in memory, the longest strides first.
local function as_it_lies(operand, group)
  if #group < 2 then return group end
  local stride, at, order = operand.x:stride(), {}, {}
  for i, label in ipairs(group) do
    order[i], at[label] = label, position(operand.labels, label)
  end
  table.sort(order, function(a, b)
    local p, q = at[a], at[b]
    if stride[p] ~= stride[q] then return stride[p] > stride[q] end
    return p < q
  end)
  return order
end

-- The labels that are summed, in an order in which neither operand must be copied, else not
-- the larger one.
local function inner_order(a, b, inner)
  if #inner < 2 then return inner end
  local large, small = a, b
  if b.x:numel() > a.x:numel() then large, small = b, a end
  local first, second = as_it_lies(large, inner), as_it_lies(small, inner)
  if lies_together(large, first) then return first end
  return lies_together(small, second) and second or first
end

-- ---------------------------------------------------------------- two operands

-- Labels in the order of `wanted`, then those that are not in it.
local function in_order(labels, wanted)
  local order = {}
  for _, label in ipairs(wanted) do
    if position(labels, label) then order[#order + 1] = label end
  end
  for _, label in ipairs(labels) do
    if not position(wanted, label) then order[#order + 1] = label end
  end
  return order
end

-- The labels of both operands (those that are kept, those that are summed), of a alone and of
-- b alone.
local function groups_of(a, b, keep)
  local batch, inner, left, right = {}, {}, {}, {}
  for _, label in ipairs(a.labels) do
    local group = not position(b.labels, label) and left or keep(label) and batch or inner
    group[#group + 1] = label
  end
  for _, label in ipairs(b.labels) do
    if not position(a.labels, label) then right[#right + 1] = label end
  end
  return batch, inner, left, right
end

-- Whether what b alone has comes before what a alone has in `wanted`: then b should be rows.
local function turned(a, b, wanted)
  for _, label in ipairs(wanted) do
    local in_a, in_b = position(a.labels, label), position(b.labels, label)
    if in_a and not in_b then return false end
    if in_b and not in_a then return true end
  end
  return false
end

-- Every product of an element of a and one of b with the same labels, summed over the labels
-- that keep(label) refuses. `wanted`: the order that is needed in the end.
local function contract(where, a, b, keep, wanted)
  a = without(a, function(label) return not keep(label) and not position(b.labels, label) end)
  b = without(b, function(label) return not keep(label) and not position(a.labels, label) end)
  if turned(a, b, wanted) then a, b = b, a end
  local batch, inner, left, right = groups_of(a, b, keep)
  batch, left, right = in_order(batch, wanted), as_it_lies(a, left), as_it_lies(b, right)
  local labels, shape = {}, {}
  for _, group in ipairs { batch, left, right } do
    for _, label in ipairs(group) do
      labels[#labels + 1] = label
      local i = position(a.labels, label)
      shape[#shape + 1] = i and a.shape[i] or b.shape[position(b.labels, label)]
    end
  end
  if #labels > 8 then
    check.fail("%s: an intermediate result has %d dimensions, expected at most 8; contract fewer "
      .. "operands at once", where, #labels)
  end
  if #inner == 0 then
    labels = in_order(labels, wanted)
    return operand_of(step("mul", spread(a, labels), spread(b, labels)), labels)
  end
  inner = inner_order(a, b, inner)
  local x = step("matmul", matrix(a, batch, left, inner), matrix(b, batch, inner, right))
  return operand_of(#left == 1 and #right == 1 and x or step("reshape", x, shape), labels)
end

-- ---------------------------------------------------------------- many operands

-- Whether the output, or an operand other than i and j, has the label.
local function keeper(operands, i, j, output)
  return function(label)
    if position(output, label) then return true end
    for k = 1, #operands do
      if k ~= i and k ~= j and position(operands[k].labels, label) then return true end
    end
    return false
  end
end

-- The elements that the product of operands i and j has more than the two themselves, and the
-- multiplications it takes.
local function growth(operands, i, j, output)
  local a, b, size, work = operands[i], operands[j], 1, 1
  local keep = keeper(operands, i, j, output)
  for d, label in ipairs(a.labels) do
    work = work * a.shape[d]
    if keep(label) then size = size * a.shape[d] end
  end
  for d, label in ipairs(b.labels) do
    if not position(a.labels, label) then
      work = work * b.shape[d]
      if keep(label) then size = size * b.shape[d] end
    end
  end
  return size - a.x:numel() - b.x:numel(), work
end

-- The two operands to contract first: those whose product has least beyond what they have
-- themselves, as opt_einsum's greedy order; among equals those that take least work.
local function choose(operands, output)
  if #operands == 2 then return 1, 2 end
  local first, second, least, least_work
  for i = 1, #operands - 1 do
    for j = i + 1, #operands do
      local more, work = growth(operands, i, j, output)
      if not first or more < least or more == least and work < least_work then
        first, second, least, least_work = i, j, more, work
      end
    end
  end
  return first, second
end

-- The sum of products of the operands over all labels that are not in `output`.
local function reduce(where, operands, output)
  while #operands > 1 do
    local i, j = choose(operands, output)
    local keep = keeper(operands, i, j, output)
    operands[i] = contract(where, operands[i], operands[j], keep, output)
    table.remove(operands, j)
  end
  local last = without(operands[1], function(label) return not position(output, label) end)
  return spread(last, output)
end

-- Takes the dimensions of size 1 away that broadcast, or are of size 1 everywhere. A label of
-- two sizes is mismatch(label, operand, size, other operand, its size).
local function fit(operands, mismatch)
  local sizes, from = {}, {}
  for i, operand in ipairs(operands) do
    for d, label in ipairs(operand.labels) do
      local n = operand.shape[d]
      if n ~= 1 and sizes[label] and sizes[label] ~= n then
        mismatch(label, from[label], sizes[label], i, n)
      end
      if n ~= 1 then sizes[label], from[label] = n, i end
    end
  end
  for i, operand in ipairs(operands) do
    operands[i] = without(operand, function(_, n) return n == 1 end)
  end
end

-- ---------------------------------------------------------------- einsum

-- A view in which a label that occurs twice occurs once, for the diagonal.
local function diagonal(where, x, labels)
  local i = 1
  while i <= #labels do
    local again
    for k = i + 1, #labels do
      if labels[k] == labels[i] then again = k end
    end
    if again then
      local n, m = x:size(i), x:size(again)
      if n ~= m then
        check.fail("einsum: letter '%s' stands twice for %s, dimensions of sizes %d and %d, " ..
          "expected equal sizes", labels[i], where, n, m)
      end
      labels[#labels + 1] = labels[i]
      table.remove(labels, again)
      table.remove(labels, i)
      x = step("diagonal", x, 0, i, again)
    else
      i = i + 1
    end
  end
  return operand_of(x, labels)
end

-- The letters of one operand or of the output, "..." among them as "...".
local function subscripts(equation, text)
  local list, at, dots = {}, 1, false
  while at <= #text do
    local letter = text:sub(at, at)
    if text:sub(at, at + 2) == "..." then
      if dots then check.fail("einsum: '%s' in '%s' has '...' twice", text, equation) end
      letter, dots = "...", true
    elseif not letter:find "^%a$" then
      check.fail("einsum: '%s' in '%s'; expected letters, ',', '...' and one '->'", letter,
        equation)
    end
    list[#list + 1] = letter
    at = at + #letter
  end
  return list
end

-- Equations that were read before: equation -> {inputs, output}. They come again and again.
local read, many = {}, 0

-- The subscripts of the operands, and of the output or nil.
local function parse(equation)
  local known = read[equation]
  if known then return known[1], known[2] end
  local text = equation:gsub("%s+", "")
  local left, right = text:match "^(.-)%->(.*)$"
  local inputs = {}
  for part in ((left or text) .. ","):gmatch "([^,]*)," do
    inputs[#inputs + 1] = subscripts(equation, part)
  end
  local output = right and subscripts(equation, right)
  if many == 1000 then read, many = {}, 0 end
  read[equation], many = { inputs, output }, many + 1
  return inputs, output
end

-- A label for each dimension: letters, and numbers from the last one for what "..." stands
-- for. Second, how many these are, or nil.
local function label(equation, i, letters, x)
  local labels, dots = {}, position(letters, "...")
  local more = x.ndim - #letters + (dots and 1 or 0)
  if more < 0 or not dots and more > 0 then
    local n = x.ndim - more
    check.fail("einsum: operand %d is %s, expected %s%d dimension%s, '%s' in '%s'", i,
      check.describe(x), dots and "at least " or "", n, n == 1 and "" or "s",
      table.concat(letters), equation)
  end
  for _, letter in ipairs(letters) do
    if letter == "..." then
      for k = more, 1, -1 do labels[#labels + 1] = k end
    else
      labels[#labels + 1] = letter
    end
  end
  return labels, dots and more
end

-- The labels of the output: as the equation says, or "..." and then the letters that occur
-- once, in the order of the alphabet.
local function output_labels(equation, inputs, given, dots)
  local count, letters, output = {}, {}, {}
  for _, input in ipairs(inputs) do
    for _, letter in ipairs(input) do
      if not count[letter] and letter ~= "..." then letters[#letters + 1] = letter end
      count[letter] = (count[letter] or 0) + 1
    end
  end
  if not given then
    table.sort(letters)
    given = { "..." }
    for _, letter in ipairs(letters) do
      if count[letter] == 1 then given[#given + 1] = letter end
    end
  end
  for i, letter in ipairs(given) do
    if letter == "..." then
      for k = dots, 1, -1 do output[#output + 1] = k end
    elseif not count[letter] then
      check.fail("einsum: the output of '%s' has '%s', which no operand has", equation, letter)
    elseif position(given, letter) < i then
      check.fail("einsum: the output of '%s' has '%s' twice", equation, letter)
    else
      output[#output + 1] = letter
    end
  end
  if #output > 8 then
    check.fail("einsum: the output of '%s' has %d dimensions, expected at most 8", equation,
      #output)
  end
  return output
end

-- What the equation says of the operands.
local function sums_of(equation, operands)
  local inputs, output = parse(equation)
  local dots, n = 0, #operands
  if n ~= #inputs then
    check.fail("einsum: '%s' is for %d tensor%s, %d given", equation, #inputs,
      #inputs == 1 and "" or "s", n)
  end
  for i = 1, n do
    local labels, more = label(equation, i, inputs[i], operands[i])
    dots = math.max(dots, more or 0)
    operands[i] = diagonal(("operand %d of '%s'"):format(i, equation), operands[i], labels)
  end
  output = output_labels(equation, inputs, output, dots)
  fit(operands, function(name, i, size, j, other)
    check.fail("einsum: %s has size %d in operand %d and size %d in operand %d of '%s'; sizes " ..
      "must be equal or 1", type(name) == "string" and ("letter '%s'"):format(name)
      or ("dimension -%d of '...'"):format(name), size, i, other, j, equation)
  end)
  return reduce("einsum", operands, output)
end

docs.einsum = { "linear algebra", "nyx.einsum(equation, x, ...): the sums of products that the " ..
  "equation names: a letter for each dimension of each tensor, ... for any others, then -> " ..
  "and the letters of the result, \"bij,bjk->bik\". Letters that the result lacks are summed " ..
  "over, a letter that a tensor has twice is its diagonal; without -> the result has ... and " ..
  "the letters that occur once, in the order of the alphabet. Size 1 broadcasts" }
--- The sums of products that an equation over the names of dimensions says.
---
---     nyx.einsum("ij,jk->ik", a, b) -- a matrix product
---     nyx.einsum("...ii", x) -- the traces of a batch of matrices
---
---@param equation string
---@param ... nyx.Tensor one for each part between commas
---@return nyx.Tensor
function nyx.einsum(equation, ...)
  check.type("einsum", "equation", equation, "string")
  local operands = { ... }
  for i = 1, select("#", ...) do check.tensor("einsum", ("operand %d"):format(i), operands[i]) end
  return by_plan(equation, operands, function(views) return sums_of(equation, views) end)
end

-- ---------------------------------------------------------------- tensordot

-- The dimensions of one tensor that are summed over, from 1.
local function summed_dims(name, x, dims)
  local found = {}
  for i, dim in ipairs(dims) do
    check.integer("tensordot", "dims for " .. name, dim, -x.ndim)
    local d = dim < 0 and dim + x.ndim + 1 or dim
    if dim == 0 or d > x.ndim then
      check.fail("tensordot: dimension %.0f of '%s', %s; dimensions count from 1, from the end " ..
        "with -1", dim, name, check.describe(x))
    end
    if position(found, d) then
      check.fail("tensordot: dimension %.0f of '%s' is named twice", dim, name)
    end
    found[i] = d
  end
  return found
end

-- x and y summed over dimensions in pairs; names are those of the caller.
local function dot_over(where, x, y, dims_x, dims_y)
  local text = table.concat(dims_x, ",") .. "=" .. table.concat(dims_y, ",")
  return by_plan(text, { x, y }, function(views)
    local labels_x, labels_y, output = {}, {}, {}
    for d = 1, x.ndim do
      labels_x[d] = d
      if not position(dims_x, d) then output[#output + 1] = d end
    end
    for d = 1, y.ndim do
      local pair = position(dims_y, d)
      labels_y[d] = pair and dims_x[pair] or x.ndim + d
      if not pair then output[#output + 1] = x.ndim + d end
    end
    local operands = { operand_of(views[1], labels_x), operand_of(views[2], labels_y) }
    fit(operands, function(d, _, n, _, m)
      check.fail("%s: %s and %s have sizes %d and %d where they are summed, dimension %d of the " ..
        "first; expected equal sizes or 1", where, check.describe(x), check.describe(y), n, m, d)
    end)
    return reduce(where, operands, output)
  end)
end

docs.tensordot = { "linear algebra", "x:tensordot(y, dims): products summed over dimensions of " ..
  "both: the last dims of x and the first of y (2), or {{of x}, {of y}} in pairs; the result " ..
  "has the other dimensions of x, then those of y" }
--- Products summed over the last `dims` dimensions of one tensor and the first of the other, or
--- over pairs of dimensions {{of self}, {of other}}.
---@param other nyx.Tensor
---@param dims? integer|integer[][] default 2
---@return nyx.Tensor
function Tensor:tensordot(other, dims)
  check.tensor("tensordot", "x", self)
  check.tensor("tensordot", "y", other)
  dims = dims or 2
  local of_x, of_y = {}, {}
  if type(dims) == "table" then
    of_x, of_y = check.type("tensordot", "dims[1]", dims[1], "table"),
      check.type("tensordot", "dims[2]", dims[2], "table")
    if #of_x ~= #of_y then
      check.fail("tensordot: 'dims' has %d dimensions of x and %d of y, expected pairs", #of_x,
        #of_y)
    end
  else
    local n = check.integer("tensordot", "dims", dims, 0)
    if n > self.ndim or n > other.ndim then
      check.fail("tensordot: 'dims' is %d; x is %s, y is %s", n, check.describe(self),
        check.describe(other))
    end
    for i = 1, n do of_x[i], of_y[i] = self.ndim - n + i, i end
  end
  return dot_over("tensordot", self, other, summed_dims("x", self, of_x),
    summed_dims("y", other, of_y))
end

docs.inner = { "linear algebra", "x:inner(y): products summed over the last dimension of both; " ..
  "the plain product where one has no dimensions" }
--- Products summed over the last dimension of both tensors.
---@param other nyx.Tensor
---@return nyx.Tensor
function Tensor:inner(other)
  check.tensor("inner", "x", self)
  check.tensor("inner", "y", other)
  if self.ndim == 0 or other.ndim == 0 then return self * other end
  if self:size(-1) ~= other:size(-1) then
    check.fail("inner: x is %s, y is %s, expected last dimensions of equal size",
      check.describe(self), check.describe(other))
  end
  return dot_over("inner", self, other, { self.ndim }, { other.ndim })
end

nyx.tensordot, nyx.inner = Tensor.tensordot, Tensor.inner

return { einsum = nyx.einsum }
