-- What several specs check with. A spec gets it by
--   package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local assert = require "luassert"
local nyx = require "nyx"

local M = {}

--- A tensor of values, float64 unless told otherwise.
function M.tensor(values, dtype) return nyx.tensor(values, { dtype = dtype or "float64" }) end

--- A random leaf of a shape.
function M.leaf(...) return nyx.randn({ ... }, { dtype = "float64", requires_grad = true }) end

--- The error of a call that must fail.
function M.message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

--- That fn fails, at a line of the spec that calls this, with all of the texts in its message.
function M.fails(fn, ...)
  local message = M.message_of(fn)
  for _, text in ipairs { ... } do
    assert.is_truthy(message:find(text, 1, true), ("%q lacks %q"):format(message, text))
  end
  local spec = debug.getinfo(2, "S").source:match "[%w_]+_spec%.lua"
  assert.is_truthy(message:find(spec .. ":", 1, true), message)
end

--- Gradients of first and second order, forward mode and vmap.
function M.gradients(f, ...)
  assert.is_true(nyx.gradcheck(f, { ... }, { forward = true, batched = true }))
  assert.is_true(nyx.gradgradcheck(f, { ... }))
end

return M
