console.log('imports come first')
import leftPad from 'left-pad'
console.log(leftPad('x', 3))
