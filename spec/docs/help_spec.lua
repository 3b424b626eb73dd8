-- The help knows everything public, in every form in which one may ask, and guesses what was
-- meant. Read next: lua/nyx/help.lua, lua/nyx/texts.lua.
local nyx = require "nyx"
local help = require "nyx.help"

describe("help", function()
  it("has a text for every layer, optimiser, dataset and function of their modules", function()
    local missing = {}
    local function look(prefix, module)
      for name, value in pairs(module) do
        local full = prefix .. "." .. name
        if name == "init" then
          look(full, value)
        elseif name ~= "classes" then
          local text = help.text(full)
          if not (text and text:find(name, 1, true)) then missing[#missing + 1] = full end
        end
      end
    end
    for _, name in ipairs { "nn", "optim", "data", "train", "show", "func", "amp", "graph",
      "linalg" } do
      look(name, nyx[name])
    end
    table.sort(missing)
    assert.equal("", table.concat(missing, " "))
  end)

  it("has a text for every function of nyx and every method and field of tensors", function()
    local internal = " blas cpu_path fail find initial_seed memory_fail_after memory_reset_peak "
      .. "memory_trim set_home set_index is_floating_point shares storage_offset touch "
    local missing = {}
    local function look(names, prefix)
      for name, value in pairs(names) do
        local wanted = type(value) == "function" or prefix == "x:"
        if wanted and not internal:find(" " .. name .. " ", 1, true)
          and not help.text(prefix .. name) then
          missing[#missing + 1] = prefix .. name
        end
      end
    end
    local functions = {}
    for name, value in next, nyx do functions[name] = value end
    look(functions, "nyx.")
    look(getmetatable(nyx.zeros(1)).__names(nyx.zeros(1)), "x:")
    for _, name in ipairs { "Function", "profile_backward", "save_for_backward" } do
      if not help.text(name) then missing[#missing + 1] = name end
    end
    table.sort(missing)
    assert.equal("", table.concat(missing, " "))
    assert.is_truthy(help.text("func.grad"):find("argnums", 1, true))
    assert.is_truthy(help.text("vmap"):find("in_dims", 1, true))
    assert.is_truthy(help.text("nyx.grad"):find("nyx.grad(y, inputs", 1, true))
  end)

  it("has no text for what does not exist", function()
    for name in pairs(require "nyx.texts") do
      local value = nyx
      for part in name:gmatch("[%w_]+") do value = value[part] end
      assert.is_not_nil(value, name)
    end
  end)

  it("takes names, functions, classes and groups", function()
    local linear = help.text("nn.Linear")
    assert.is_truthy(linear:find("in_features", 1, true))
    for _, what in ipairs { "Linear", "nyx.nn.Linear", nyx.nn.Linear } do
      assert.equal(linear, help.text(what))
    end
    assert.equal(help.text("matmul"), help.text("x:matmul"))
    assert.equal(help.text("matmul"), help.text(nyx.matmul))
    assert.is_truthy(help.text("split"):find("x:split", 1, true))
    assert.is_truthy(help.text(nyx.data.split):find("data.split", 1, true))
    assert.is_truthy(help.text("relu_"):find("x:relu()", 1, true))
    assert.is_truthy(help.text("x.shape"):find("sizes", 1, true))
    assert.is_truthy(help.text("nn"):find("nn.Linear", 1, true))
    assert.equal(help.text("nn"), help.text(nyx.nn))
    assert.is_truthy(help.text("trigonometric"):find("atan2", 1, true))
  end)

  it("guesses what was meant", function()
    for typed, meant in pairs { matml = "matmul", sofmax = "softmax", Linaer = "nn.Linear",
      ["x:trnaspose"] = "transpose" } do
      local text, message = help.text(typed)
      assert.is_nil(text)
      assert.is_truthy(message:find("did you mean '" .. meant .. "'", 1, true), message)
    end
    local _, message = help.text("qqqqqqqq")
    assert.is_nil(message:find("mean", 1, true))
  end)

  it("says so when there is nothing to say", function()
    for _, what in ipairs { 1, true, print, {}, nyx.zeros(2) } do
      local text, message = help.text(what)
      assert.is_nil(text)
      assert.equal("help: ", message:sub(1, 6))
    end
  end)

  it("is in the same order every time", function()
    assert.equal(help.text(), help.text())
    local groups = help.groups()
    assert.equal("gradient", groups[#groups].group)
    for _, group in ipairs(groups) do
      for i = 2, #group.entries do
        assert.is_true(group.entries[i - 1].name < group.entries[i].name)
      end
    end
  end)

  it("writes declarations for the language server", function()
    local text = help.annotations()
    assert.is_truthy(text:find("---@field matmul fun", 1, true))
    local tensor, functions = text:match("^(.-)\n%-%-%-@class nyx\n(.*)$")
    for _, name in ipairs { "register_hook", "retain_grad", "backward", "detach", "split" } do
      assert.is_truthy(tensor:find("---@field " .. name .. " fun(self: nyx.Tensor", 1, true), name)
    end
    for _, line in ipairs { "retains_grad boolean", "shape integer[]", "grad nyx.Tensor?" } do
      assert.is_truthy(tensor:find("---@field " .. line, 1, true), line)
    end
    for _, name in ipairs { "detect_anomaly", "autocast", "Function", "checkpoint", "grad" } do
      assert.is_truthy(functions:find("---@field " .. name .. " fun(", 1, true), name)
    end
  end)
end)

describe("completion", function()
  it("of a tensor has its methods as functions, and its fields", function()
    local names = getmetatable(nyx.zeros(1)).__names(nyx.zeros(1))
    assert.equal("function", type(names.matmul))
    assert.equal("function", type(names.relu_))
    assert.is_not_nil(names.shape)
    assert.is_not.equal("function", type(names.shape))
  end)

  it("of nyx has the modules that are not loaded yet", function()
    local names = getmetatable(nyx).__names()
    assert.is_not_nil(rawget(nyx, "quantile")) -- of what is loaded late
    for _, name in ipairs { "nn", "optim", "data", "train", "func", "fft", "linalg", "save",
      "load", "einsum" } do
      assert.is_true(names[name], name)
      assert.is_not_nil(nyx[name])
    end
  end)
end)

describe("a comparison with an operator", function()
  it("says which method to use", function()
    local x = nyx.ones(2)
    for _, compare in ipairs { function() return x < x end, function() return x >= x end } do
      local ok, message = pcall(compare)
      assert.is_false(ok)
      assert.is_truthy(message:find("x:lt(y)", 1, true), message)
    end
  end)
end)
