-- Trees: a tensor, or a table whose values are trees; other values are carried along. What
-- functions of tensors take and give, for what transforms and checks them.
-- Read next: func.lua, gradcheck.lua.
local nyx = require "nyx.core"

local is_tensor = nyx.is_tensor

local M = {}

--- The tree with fn(tensor) in place of each tensor.
---@param tree any
---@param fn fun(t: nyx.Tensor): any
---@return any
function M.map(tree, fn)
  if is_tensor(tree) then return fn(tree) end
  if type(tree) ~= "table" or getmetatable(tree) then return tree end
  local result = {}
  for key, value in pairs(tree) do result[key] = M.map(value, fn) end
  return result
end

-- The keys of a table in a fixed order: positions first, then names.
local function keys_of(tree)
  local keys = {}
  for key in pairs(tree) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) == "number" end
    return a < b
  end)
  return keys
end

--- The tensors of a tree, keys in order.
---@param tree any
---@param list? nyx.Tensor[] to append to
---@return nyx.Tensor[]
function M.leaves(tree, list)
  list = list or {}
  if is_tensor(tree) then
    list[#list + 1] = tree
  elseif type(tree) == "table" and not getmetatable(tree) then
    for _, key in ipairs(keys_of(tree)) do M.leaves(tree[key], list) end
  end
  return list
end

--- The tree with its tensors replaced by those of a list in the order of leaves.
---@param tree any
---@param list nyx.Tensor[]
---@return any
function M.rebuild(tree, list)
  local at = 0
  local function walk(part)
    if is_tensor(part) then
      at = at + 1
      return list[at]
    end
    if type(part) ~= "table" or getmetatable(part) then return part end
    local result = {}
    for _, key in ipairs(keys_of(part)) do result[key] = walk(part[key]) end
    return result
  end
  return walk(tree)
end

return M
