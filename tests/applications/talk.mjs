// What every Node user has in common: it says something numbered ten times a second while its client lets it, and records
// what it said, what it heard, when its client told it of a break, and what it heard that cannot belong to its conversation.
import { createRequire } from 'node:module'

// The packages are installed outside of this directory, where an import would not look for them.
export const need = createRequire(process.env.NODE_MODULES_OF)
export const [role, argument, directory] = process.argv.slice(2)
export const RHYTHM_MS = 100

const record = (what, fields) => console.log(JSON.stringify({ at: Date.now(), what, ...fields }))
export const heard = (n) => record('hear', { n })
export const told = (text) => record('told', { text: String(text) })
export const wrong = (text) => record('wrong', { text: String(text) })
export const later = (ms) => new Promise((done) => setTimeout(done, ms))

let over = false
process.stdin.on('end', () => { over = true }).resume()

// `say(n)` answers false where its client knows that it cannot say anything now. What it says must not wait for an answer.
export function talk(say) {
  let n = 0
  setInterval(() => {
    if (over) return
    if (say(n + 1) === false) return
    n += 1
    record('say', { n })
  }, RHYTHM_MS)
}

// For clients that ask and wait: one question after the other. A question that fails is not answered.
export async function converse(ask) {
  for (let n = 1; !over; n += 1) {
    record('say', { n })
    try {
      const answer = await ask(n)
      if (answer === n) heard(n)
      else wrong(`${JSON.stringify(answer)} for ${n}`)
    } catch (error) { told(error?.message ?? error) }
    await later(RHYTHM_MS)
  }
}
// A client that is thrown away by its application must not take the user with it.
process.on('unhandledRejection', (error) => console.error('unhandled', error))
process.on('uncaughtException', (error) => console.error('uncaught', error))
