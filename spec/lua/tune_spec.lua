-- nyx.tune: its arguments, what it gives, that it measures and follows, in a file of its own.
local nyx = require "nyx"

describe("nyx.tune", function()
  local file, before
  before_each(function()
    before = nyx.tune()
    file = os.tmpname()
    os.remove(file)
  end)
  after_each(function()
    assert(nyx.tune(before.mode, { file = "" }))
    os.remove(file)
  end)

  local function product(n)
    local a, b = nyx.ones(n, n), nyx.ones(n, n)
    return nyx.matmul(a, b)
  end

  it("measures what it meets, keeps it and follows it", function()
    local info = assert(nyx.tune(true, { file = file }))
    assert.are.equal("measure", info.mode)
    assert.are.equal(file, info.file)
    assert.are.equal(0, info.known)
    assert.are.equal(48, product(48)[1][1]:item())
    info = nyx.tune()
    assert.are.equal(1, info.known)
    local row = info.sizes[1]
    assert.are.equal("product", row.choice)
    assert.matches("float32.*rows 48, columns 48, terms 48", row.size)
    assert.is_true(row.seconds > 0 and row.seconds <= row.rule_seconds)
    assert.is_nil(info.sizes[2])
    local measured = info.measured
    product(48)
    assert.are.equal(measured, nyx.tune().measured)

    info = assert(nyx.tune("use", { file = file }))
    assert.are.equal(1, info.known)
    product(64)
    assert.are.equal(1, nyx.tune().known)
    assert.are.equal("off", assert(nyx.tune(false)).mode)
  end)

  it("refuses a file that is none of its own, and leaves it", function()
    local handle = assert(io.open(file, "w"))
    handle:write "os.exit(1)"
    handle:close()
    local ok, message = nyx.tune(true, { file = file })
    assert.is_nil(ok)
    assert.matches(file .. ": it is no tuning file of Nyx; remove it or name another", message, 1,
      true)
    assert.are.equal(message, "tune: " .. nyx.tune().problem)
    product(48)
    handle = assert(io.open(file))
    assert.are.equal("os.exit(1)", handle:read "*a")
    handle:close()
  end)

  it("says what is wrong with its arguments", function()
    for _, case in ipairs {
      { "bad argument #1 'mode' to 'tune' %(true, false.*\"measure\".* expected, got number", 1 },
      { "bad argument #1 'mode' to 'tune' .*expected, got string", "fast" },
      { "bad argument #2 'options' to 'tune' %(table expected, got string", true, "file" },
      { "tune: unknown option 'path'; known: file", true, { path = "x" } },
      { "bad option 'file' to 'tune' %(string expected, got boolean", true, { file = true } },
      { "it has a zero byte", true, { file = "a\0b" } },
      { "tune: the file's name is too long; expected fewer than 924 bytes", true,
        { file = ("x"):rep(1000) } },
    } do
      local ok, message = pcall(nyx.tune, case[2], case[3])
      assert.is_false(ok)
      assert.matches(case[1], message)
    end
  end)
end)
