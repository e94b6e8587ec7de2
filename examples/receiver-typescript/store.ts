import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

// How many notices are remembered; Latchkey repeats none after so many others.
const remembered = 100

// What the file holds. The key and the ids of the notices that were taken are one thing, so that neither is ever without the
// other.
export type State = { key: string; taken: string[] }

export function read(file: string): State {
  const { key, taken = [] } = JSON.parse(readFileSync(file, 'utf8')) as Partial<State>
  if (!key) {
    throw new Error(`${file} is not {"key": "…"}`)
  }
  return { key, taken }
}

// write replaces the file whole, for its owner alone: whoever reads it finds the old key or the new, and after a crash too.
export function write(file: string, state: State): void {
  const fresh = `${file}.${process.pid}.new`
  rmSync(fresh, { force: true }) // of a process that died
  try {
    settled(fresh, 'wx', JSON.stringify({ key: state.key, taken: state.taken.slice(-remembered) }) + '\n')
    renameSync(fresh, file)
  } catch (error) {
    rmSync(fresh, { force: true })
    throw error
  }
  settled(dirname(file), 'r') // a rename outlasts a loss of power once its folder is written
}

function settled(path: string, flags: string, text?: string): void {
  const opened = openSync(path, flags, 0o600)
  try {
    if (text !== undefined) {
      writeSync(opened, text)
    }
    fsyncSync(opened)
  } finally {
    closeSync(opened)
  }
}
