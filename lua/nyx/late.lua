-- Composites that scripts need less often: their files are read when a method, or a function
-- of nyx, that nothing else has is first asked for. Read next: init.lua, compose.lua.
local nyx = require "nyx.core"

local files = { "products", "einsum", "statistics", "linalg", "special" }
local loaded = false

--- Reads them, once.
local function load_all()
  if loaded then return end
  loaded = true
  setmetatable(nyx.Tensor, nil)
  for _, name in ipairs(files) do require("nyx." .. name) end
end

-- What looks a method up in vain: bindings/lua/tensor.c.
setmetatable(nyx.Tensor, {
  __index = function(methods, name)
    load_all()
    return rawget(methods, name)
  end,
})

return { load_all = load_all }
