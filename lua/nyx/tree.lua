-- Trees: a tensor, or a plain table whose values are trees; what is neither (numbers, modules and
-- other tables with a metatable) is carried along. What functions of tensors take and give,
-- for what transforms, checks and checkpoints them. `where` is the function that messages name.
-- Read next: func.lua, checkpoint.lua, gradcheck.lua.
local check = require "nyx.check"
local nyx = require "nyx.core"

local is_tensor = nyx.is_tensor

local M = {}

local DEEPEST = 200 -- tables in tables

local function is_branch(tree)
  return type(tree) == "table" and not getmetatable(tree)
end

local function check_depth(where, depth)
  if depth > DEEPEST then
    check.fail("%s: a table is nested more than %d deep; expected a tree of tensors: does it "
      .. "contain itself?", where or "nyx", DEEPEST)
  end
end

local type_order = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local first, second = type_order[type(a)] or 4, type_order[type(b)] or 4
  if first ~= second then return first < second end
  if first > 2 then return tostring(a) < tostring(b) end
  return a < b
end

--- The keys of a table in a fixed order: positions, names, others.
---@param tree table
---@return any[]
function M.keys(tree)
  local keys = {}
  for key in pairs(tree) do keys[#keys + 1] = key end
  table.sort(keys, before)
  return keys
end

--- A copy of the tree with fn(tensor) in place of every tensor, called in a fixed order.
---@param tree any
---@param fn fun(t: nyx.Tensor): any
---@param where? string
---@return any
function M.map(tree, fn, where)
  local function walk(part, depth)
    if is_tensor(part) then return fn(part) end
    if not is_branch(part) then return part end
    check_depth(where, depth)
    local result = {}
    for _, key in ipairs(M.keys(part)) do result[key] = walk(part[key], depth + 1) end
    return result
  end
  return walk(tree, 1)
end

local function path_of(key)
  return type(key) == "string" and "." .. key or ("[%s]"):format(tostring(key))
end

-- Calls fn(tensor, path) for the tensors of a tree in the order of `map`.
local function visit(tree, fn, where)
  local function walk(part, path, depth)
    if is_tensor(part) then
      fn(part, path)
    elseif is_branch(part) then
      check_depth(where, depth)
      for _, key in ipairs(M.keys(part)) do walk(part[key], path .. path_of(key), depth + 1) end
    end
  end
  walk(tree, "", 1)
end

--- The tensors of a tree, in the order of `map`.
---@param tree any
---@param list? nyx.Tensor[] to append to
---@param where? string
---@return nyx.Tensor[]
function M.leaves(tree, list, where)
  list = list or {}
  visit(tree, function(t) list[#list + 1] = t end, where)
  return list
end

--- A copy of the tree with the tensors of a list, in the order of `leaves`, in their places.
---@param tree any
---@param list any[]
---@param where? string
---@return any
function M.rebuild(tree, list, where)
  local at = 0
  return M.map(tree, function()
    at = at + 1
    return list[at]
  end, where)
end

--- The tensors of a tree that has to have its tensors where `like` has them; else an error
--- names the first difference.
---@param where string
---@param what string what the tree is called in messages: "the tangent of argument 1"
---@param tree any
---@param like any
---@param other string what `like` is called: "the argument"
---@return nyx.Tensor[] list, nyx.Tensor[] of_like
function M.matched(where, what, tree, like, other)
  local list, paths, of_like, wanted = {}, {}, {}, {}
  visit(tree, function(t, path) list[#list + 1], paths[#paths + 1] = t, path end, where)
  visit(like, function(t, path)
    of_like[#of_like + 1], wanted[#wanted + 1] = t, path
  end, where)
  local known = {}
  for _, path in ipairs(wanted) do known[path] = true end
  for k = 1, math.max(#paths, #wanted) do
    if paths[k] ~= wanted[k] then
      local extra = paths[k] and not known[paths[k]]
      local path = extra and paths[k] or wanted[k]
      local at = path == "" and "is a tensor" or ("has a tensor at %s"):format(path)
      if extra then
        check.fail("%s: %s %s, %s has none there; expected tensors in the same places", where,
          what, at, other)
      end
      check.fail("%s: %s is %s, but %s %s; expected tensors in the same places", where, what,
        #paths == 0 and check.describe(tree) or "without it", other, at)
    end
  end
  return list, of_like
end

return M
