-- nyx.func.vmap: a function written for one entry, run for a batch of them at once.
-- Read next: ../func.lua, core/transform/batch.c.
local check = require "nyx.check"
local nyx = require "nyx"
local trees = require "nyx.tree"

local lift = nyx.lift
local is_tensor = nyx.is_tensor
local unpack = table.unpack or unpack

local M = {}

local WHERE = "func.vmap"

local function pack(...) return { n = select("#", ...), ... } end

-- ---------------------------------------------------------------- in_dims and out_dims

-- Both say for every tensor of a tree along which dimension its entries lie: a number, or
-- false where it is the same for all. `what` is {option, tree, more}: the option's name, what
-- the tree is called in messages, and how many dimensions a tensor has besides its own (a
-- result gets the batch).

local function dimension_of(t, dim, what)
  if not dim then return false end
  local ndim = t.ndim + what.more
  if ndim == 0 then
    check.fail("%s: %s is a tensor without dimensions, there is none to map over; give false "
      .. "for it in %s", WHERE, what.tree, what.option)
  end
  if dim > ndim or dim < -ndim then
    check.fail("%s: %s names dimension %d of %s, which is %s; expected 1 to %d, or -1 for the last",
      WHERE, what.option, dim, what.tree, check.describe(t), ndim)
  end
  return dim > 0 and dim or ndim + 1 + dim
end

local function check_dimension(dim, what)
  local fine = dim == false or type(dim) == "table"
    or type(dim) == "number" and dim % 1 == 0 and dim ~= 0
  if not fine then
    check.fail("%s: %s is %s for %s, expected a dimension (from 1, or from -1 backwards), false, "
      .. "or a table like it", WHERE, what.option, check.describe(dim), what.tree)
  end
end

-- The dimensions of the tensors of a tree, in their order.
local function read_dims(tree, dim, what, dims)
  dims = dims or {}
  check_dimension(dim, what)
  if is_tensor(tree) then
    if type(dim) == "table" then
      check.fail("%s: %s has a table for %s, which is a tensor; expected a dimension or false",
        WHERE, what.option, what.tree)
    end
    dims[#dims + 1] = dimension_of(tree, dim, what)
  elseif type(tree) == "table" and not getmetatable(tree) then
    if type(dim) == "table" then
      for key in pairs(dim) do
        if tree[key] == nil then
          check.fail("%s: %s names '%s' of %s, which has no such entry", WHERE, what.option,
            tostring(key), what.tree)
        end
      end
    end
    for _, key in ipairs(trees.keys(tree)) do
      local inner = dim
      if type(dim) == "table" then inner = dim[key] or false end
      local name = ("%s[%s]"):format(what.tree, tostring(key))
      read_dims(tree[key], inner, { option = what.option, tree = name, more = what.more }, dims)
    end
  elseif type(dim) == "table" then
    check.fail("%s: %s has a table for %s, which is %s", WHERE, what.option, what.tree,
      check.describe(tree))
  end
  return dims
end

-- The option as given for value i of n: one for all, or a list with one for each.
local function choice_for(option, given, i, n, values)
  if given == nil then return 1 end
  if type(given) ~= "table" then return given end
  for key in pairs(given) do
    if type(key) ~= "number" or key % 1 ~= 0 or key < 1 or key > n then
      check.fail("%s: %s has an entry '%s', the function %s %d; expected a list with one for each",
        WHERE, option, tostring(key), values, n)
    end
  end
  if given[i] == nil then
    check.fail("%s: %s has no entry %d, the function %s %d; expected a list with one for each "
      .. "(false: the same for all)", WHERE, option, i, values, n)
  end
  return given[i]
end

-- ---------------------------------------------------------------- arguments

-- Of every argument the tree, its tensors, and their dimensions; and how many entries there are.
local function read_arguments(args, in_dims)
  local list, size = { n = args.n }, nil
  for i = 1, args.n do
    local what = { option = "in_dims", tree = "argument " .. i, more = 0 }
    local leaves = trees.leaves(args[i], nil, WHERE)
    local dim = choice_for("in_dims", in_dims, i, args.n, "got")
    if #leaves == 0 and type(in_dims) == "table" and dim then
      check.fail("%s: in_dims maps argument %d, which is %s; expected a tensor, or false there",
        WHERE, i, check.describe(args[i]))
    end
    local dims = read_dims(args[i], dim, what)
    for k, at in ipairs(dims) do
      local own = at and leaves[k]:size(at)
      size = size or own or nil
      if own and own ~= size then
        check.fail("%s: a tensor of argument %d has shape (%s), its dimension %d is not %d as "
          .. "those of the others", WHERE, i, table.concat(leaves[k].shape, "x"), at, size)
      end
    end
    list[i] = { tree = args[i], leaves = leaves, dims = dims }
  end
  if not size then
    check.fail("%s: no argument has a mapped dimension; see in_dims", WHERE)
  end
  return list, size
end

-- fn(tensor, dimension) in place of every mapped tensor.
local function replaced(argument, fn)
  local list = {}
  for k, t in ipairs(argument.leaves) do
    list[k] = argument.dims[k] and fn(t, argument.dims[k]) or t
  end
  return list
end

-- The mapped arguments cut to `count` entries from `first` on.
local function cut(arguments, first, count)
  local result = { n = arguments.n }
  for i, argument in ipairs(arguments) do
    result[i] = { tree = argument.tree, dims = argument.dims,
      leaves = replaced(argument, function(t, dim) return t:narrow(dim, first, count) end) }
  end
  return result
end

-- ---------------------------------------------------------------- results

-- The results of all entries, and the dimensions they got.
local function join(level, results, out_dims)
  local all = { n = results.n }
  local joined = { n = results.n, dims = all }
  for i = 1, results.n do
    local what = { option = "out_dims", tree = "result " .. i, more = 1 }
    local leaves = trees.leaves(results[i], nil, WHERE)
    local dims = read_dims(results[i], choice_for("out_dims", out_dims, i, results.n, "gave"), what)
    for k, t in ipairs(leaves) do
      if dims[k] then
        leaves[k] = lift.join(level, t, dims[k])
      elseif lift.has_level(level, t) then
        check.fail("%s: out_dims is false for result %d, which differs between the entries; "
          .. "expected a dimension", WHERE, i)
      end
    end
    joined[i], all[i] = trees.rebuild(results[i], leaves, WHERE), dims
  end
  return joined
end

local function join_chunks(chunks)
  local joined = { n = chunks[1].n }
  for i = 1, joined.n do
    local lists, parts = {}, {}
    for c, chunk in ipairs(chunks) do lists[c] = trees.leaves(chunk[i], nil, WHERE) end
    for k, first in ipairs(lists[1]) do
      local dim, column = chunks[1].dims[i][k], {}
      for c = 1, #lists do column[c] = lists[c][k] end
      parts[k] = dim and nyx.cat(column, dim) or first
    end
    joined[i] = trees.rebuild(chunks[1][i], parts, WHERE)
  end
  return joined
end

-- ---------------------------------------------------------------- the run

local function run_entries(level, f, arguments, out_dims)
  local mapped = {}
  for i, argument in ipairs(arguments) do
    local entries = replaced(argument, function(t, dim) return lift.entries(level, t, dim) end)
    mapped[i] = trees.rebuild(argument.tree, entries, WHERE)
  end
  return join(level, pack(f(unpack(mapped, 1, arguments.n))), out_dims)
end

local function run_chunks(f, arguments, size, options)
  local chunks, state = {}, nyx.get_rng_state()
  for first = 1, size, options.chunk_size do
    if options.randomness == "same" then nyx.set_rng_state(state) end
    local count = math.min(options.chunk_size, size - first + 1)
    chunks[#chunks + 1] = lift.batch_level(count, options.randomness, run_entries, f,
      cut(arguments, first, count), options.out_dims)
  end
  return join_chunks(chunks)
end

--- vmap(f) is f over a batch: f is written for one entry, vmap(f) takes tensors with a further
--- dimension and gives results with one, computed for all entries at once. `in_dims` says
--- which dimension of each argument is the batch: a number for all (default 1), or a list with
--- a number, false (the same for all entries) or a table like the argument; `out_dims` where
--- it goes in the results (default 1; false: the result is the same for all entries, and stays
--- as it is). `chunk_size` entries at a time bound the memory. Ops without a batching rule run
--- entry by entry. Random numbers, those of dropout too, are an error unless `randomness` is
--- "different" (every entry draws its own) or "same" (all draw the same, in chunks too).
---@param f function
---@param options? {in_dims: any, out_dims: any, chunk_size: integer, randomness: string}
---@return function
function M.vmap(f, options)
  check.callable(WHERE, "f", f)
  options = check.options(WHERE, options, "in_dims out_dims chunk_size randomness")
  local given = options
  options = { in_dims = given.in_dims, out_dims = given.out_dims, chunk_size = given.chunk_size,
    randomness = check.choice(WHERE, "randomness", given.randomness or "error",
      "error different same") }
  if options.chunk_size then check.integer(WHERE, "chunk_size", options.chunk_size) end
  if type(options.in_dims) ~= "table" and options.in_dims ~= nil then
    check_dimension(options.in_dims, { option = "in_dims", tree = "all arguments" })
  end
  if type(options.out_dims) ~= "table" and options.out_dims ~= nil then
    check_dimension(options.out_dims, { option = "out_dims", tree = "all results" })
  end
  return function(...)
    local arguments, size = read_arguments(pack(...), options.in_dims)
    local results
    if options.chunk_size and options.chunk_size < size then
      results = run_chunks(f, arguments, size, options)
    else
      results = lift.batch_level(size, options.randomness, run_entries, f, arguments,
        options.out_dims)
    end
    return unpack(results, 1, results.n)
  end
end

return M
