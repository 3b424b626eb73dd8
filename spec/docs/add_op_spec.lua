-- Does what docs/add-an-op.md says, in a copy of the source tree: appends the row that the
-- page shows, builds, and looks whether everything the page promises is there. Takes half a
-- minute to two minutes, most of it compiling. Read next: docs_spec.lua.
local source = debug.getinfo(1, "S").source
package.path = (source:match "^@(.*/)" or "./") .. "?.lua;" .. package.path
local shell = require "shell"
local root = shell.root(source)

-- Nothing here depends on the interpreter of the specs; under LuaJIT or sanitizers the same
-- would be built and tested again.
local repeated = rawget(_G, "jit") or os.getenv "ASAN_OPTIONS"

describe("docs/add-an-op.md", function()
  if repeated then
    it("is tried out by the release suite under Lua 5.4", function() pending("once is enough") end)
    return
  end

  local tree, name, nyx

  local function run(command)
    return shell.run(("cd '%s' && %s"):format(tree, command))
  end

  -- Output of a script in the copy's interpreter.
  local function script(text)
    shell.write(tree .. "/script.lua", 'local nyx = require "nyx"\n' .. text)
    local code, output = run(nyx .. " script.lua")
    assert.equal(0, code, output)
    return output
  end

  -- The tests of a spec whose names contain the op's: the TAP output.
  local function spec(file)
    local code, output = run(("LUA_CPATH='%s/build/lib/lua/5.4/?.so;;' busted --output=TAP "
      .. "--lua=%s --filter='%s' %s"):format(tree, nyx, name, file))
    assert.equal(0, code, output)
    assert.is_nil(output:find("not ok", 1, true), output)
    return output
  end

  setup(function()
    tree = shell.folder()
    local page = shell.read(root .. "docs/add-an-op.md")
    local row = assert(page:match("```c\n(NYX_UNARY.-)```"))
    name = assert(row:match("NYX_UNARY%(([%w_]+)"))
    local code, output = run(("for entry in '%s'*; do case $entry in */build|*/install) ;; "
      .. "*) cp -r \"$entry\" . ;; esac; done"):format(root))
    assert.equal(0, code, output)
    local table_file = tree .. "/kernels/elementwise.def"
    local rows = shell.read(table_file)
    assert.is_nil(rows:find("(" .. name .. ",", 1, true), name .. " is an op already")
    shell.write(table_file, rows .. row)
    code, output = run("cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Debug -DNYX_LUAJIT=OFF "
      .. "&& cmake --build build -j 2 --target nyx_exe nyx_oracle_5.4")
    assert.equal(0, code, output)
    nyx = tree .. "/build/bin/nyx"
  end)

  teardown(function() shell.run("rm -r '" .. tree .. "'") end)

  it("gives a function, a method, options and an in-place form", function()
    local output = script(([[
      local x = nyx.tensor({ -1, 0, 2 }, { dtype = "float64" })
      local function reference(b) return ((x + (x * x + b):sqrt()) / 2) end
      assert(nyx.OP(x):allclose(reference(4)))
      assert(x:OP(2):allclose(reference(2)))
      assert(x:OP { b = 2 }:allclose(reference(2)))
      local expected = reference(4)
      x:OP_()
      assert(x:allclose(expected))
      print "done"
    ]]):gsub("OP", name))
    assert.equal("done\n", output)
  end)

  it("is differentiable more than once", function()
    local output = script(([[
      local x = nyx.tensor({ 0, 1.5 }, { dtype = "float64", requires_grad = true })
      local g = nyx.grad(x:OP():sum(), x, { create_graph = true })
      local second = nyx.grad(g:sum(), x)
      assert(g:allclose((1 + x / (x * x + 4):sqrt()) / 2))
      assert(second:allclose((x * x + 4):pow(-1.5) * 2))
      print "done"
    ]]):gsub("OP", name))
    assert.equal("done\n", output)
  end)

  it("is found by spec/op, with nothing skipped", function()
    local output = spec("spec/op/op_spec.lua")
    assert.is_nil(output:find("SKIP", 1, true), output)
    for _, what in ipairs { "float32 equals the oracle", "float64 equals the oracle",
      "float16 equals the oracle", "writes in place", "has the gradient of order 1",
      "has the gradient of order 2" } do
      assert.is_truthy(output:find(name .. "[^\n]*" .. what), what .. ":\n" .. output)
    end
  end)

  it("runs on OpenCL", function()
    local devices = script("for _, d in ipairs(nyx.devices()) do print(d.name) end")
    if not devices:find("opencl", 1, true) then pending("no OpenCL device here") return end
    local output = spec("spec/op/opencl_spec.lua")
    assert.is_truthy(output:find(name .. " on float32 equals the CPU", 1, true), output)
    assert.is_truthy(output:find(name .. " has the CPU's gradients", 1, true), output)
  end)

  it("is in the help and in the reference", function()
    assert.is_truthy(script(('nyx.help "%s"'):format(name)):find("Barron 2021", 1, true))
    local _, reference = run(nyx .. " docs/reference.lua")
    assert.is_truthy(reference:find("### `x:" .. name .. "([b])`", 1, true))
  end)
end)
